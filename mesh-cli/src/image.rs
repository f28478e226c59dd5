//! Names of images: where one comes from, and of which version it is.

use anyhow::ensure;

/// The name of an image in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'n> {
    /// Registry and repository.
    pub repository: &'n str,
    /// The tag, where it has one.
    pub tag: Option<&'n str>,
    /// The digest, where it is pinned to one.
    pub digest: Option<&'n str>,
}

impl<'n> Image<'n> {
    /// The parts of `name`.
    pub fn of(name: &'n str) -> Self {
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (name, None),
        };
        match name.rsplit_once(':') {
            // What a slash follows is the port of a registry.
            Some((repository, tag)) if !tag.contains('/') => {
                Self { repository, tag: Some(tag), digest }
            }
            _ => Self { repository: name, tag: None, digest },
        }
    }

    /// The version that its tag says it is of, where that is one.
    pub fn version(self) -> Option<&'n str> {
        let tag = self.tag?;
        Some(tag.strip_prefix('v').unwrap_or(tag)).filter(|it| is_version(it))
    }
}

/// The image of `version` where `installed` comes from.
///
/// # Errors
/// Where `installed` is pinned to a digest: which one is that of another version is not known.
pub fn of_version(installed: &str, version: &str) -> anyhow::Result<String> {
    let image = Image::of(installed);
    // What is of this version already stays what it is, digest and all.
    if image.version() == Some(version) {
        return Ok(installed.to_owned());
    }
    let Image { repository, tag, digest } = image;
    ensure!(
        digest.is_none(),
        "{installed} is installed, which a digest pins to one version: name the image of {version} \
         with --image"
    );
    let v = if image.version().is_some() && tag.is_some_and(|it| it.starts_with('v')) {
        "v"
    } else {
        ""
    };
    Ok(format!("{repository}:{v}{version}"))
}

/// As releases are called: three numbers, and a word for what comes before a release. What else
/// follows is somebody's own, such as a mirror's, and says nothing certain.
fn is_version(tag: &str) -> bool {
    let (core, rest) = tag.split_once('-').unwrap_or((tag, ""));
    let numbers: Vec<_> = core.split('.').collect();
    let is_known = ["alpha", "beta", "rc"].iter().any(|word| rest.starts_with(word));
    numbers.len() == 3
        && numbers.iter().all(|it| it.parse::<u64>().is_ok())
        && (rest.is_empty() || is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts() {
        for (name, repository, tag, digest) in [
            ("nodemesh:0.1.0", "nodemesh", Some("0.1.0"), None),
            (
                "registry:5000/mesh/nodemesh:0.2.0",
                "registry:5000/mesh/nodemesh",
                Some("0.2.0"),
                None,
            ),
            ("registry:5000/nodemesh", "registry:5000/nodemesh", None, None),
            ("r/nodemesh@sha256:00", "r/nodemesh", None, Some("sha256:00")),
            ("r:1/nodemesh:0.1.0@sha256:00", "r:1/nodemesh", Some("0.1.0"), Some("sha256:00")),
        ] {
            assert_eq!(Image::of(name), Image { repository, tag, digest }, "{name}");
        }
    }

    #[test]
    fn a_tag_is_a_version_where_it_is_numbers() {
        for (name, version) in [
            ("nodemesh:0.1.0", Some("0.1.0")),
            ("nodemesh:0.1.0-rc.1", Some("0.1.0-rc.1")),
            ("nodemesh:0.1.0@sha256:00", Some("0.1.0")),
            ("nodemesh:v0.1.0", Some("0.1.0")),
            ("nodemesh:0.1.0-mirror.2", None),
            ("nodemesh:latest", None),
            ("nodemesh:main-2f1c3a", None),
            ("nodemesh:0.1", None),
            ("nodemesh@sha256:00", None),
        ] {
            assert_eq!(Image::of(name).version(), version, "{name}");
        }
    }

    #[test]
    fn another_version_comes_from_the_same_place() {
        let next = |installed| of_version(installed, "0.2.0");
        for installed in ["r:5000/mesh:0.1.0", "r:5000/mesh", "r:5000/mesh:latest"] {
            assert_eq!(next(installed).expect("a name"), "r:5000/mesh:0.2.0", "{installed}");
        }
        assert_eq!(next("r/mesh:v0.1.0").expect("a name"), "r/mesh:v0.2.0");
        for pinned in ["r/mesh@sha256:00", "r/mesh:0.1.0@sha256:00"] {
            let error = next(pinned).expect_err("which digest?").to_string();
            assert!(error.contains("--image"), "{error}");
        }
        let same = "r/mesh:0.2.0@sha256:00";
        assert_eq!(next(same).expect("it is that already"), same);
    }
}
