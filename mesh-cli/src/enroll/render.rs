//! A pod's answer for people, and as JSON whose fields keep name and meaning.

use mesh_common::api::v1;
use serde::Serialize;

use crate::output::{Palette, Tone};

/// A line for people.
pub fn line(pod: &v1::PodEnrollment, closing: bool, palette: Palette) -> String {
    let state = match pod.state.as_str() {
        "captured" => palette.paint(Tone::Good, "captured"),
        "" => palette.paint(Tone::Notable, "not in the mesh"),
        state => palette.paint(Tone::Bad, state),
    };
    let mut facts = vec![state];
    facts.extend(Some(pod.reason.clone()).filter(|reason| !reason.is_empty()));
    if closing && pod.closed > 0 {
        facts.push(format!("{} from before ended", connections(pod.closed)));
    }
    if pod.unmeshed > 0 {
        facts.push(format!("{} from before", connections(pod.unmeshed)));
    } else if pod.closed == 0 && pod.state == "captured" && pod.error.is_empty() {
        facts.push("no connections from before".to_owned());
    }
    let error = (!pod.error.is_empty()).then(|| palette.paint(Tone::Bad, &pod.error));
    facts.extend(error);
    format!("{}: {}\n", name(pod), facts.join(", "))
}

/// A line of JSON.
///
/// # Errors
/// None that could happen: every field is a text, a number or a truth.
pub fn json(pod: &v1::PodEnrollment) -> serde_json::Result<String> {
    let line = serde_json::to_string(&Pod {
        name: name(pod),
        node: &pod.node,
        enrolled: pod.enrolled,
        state: &pod.state,
        reason: &pod.reason,
        unmeshed: pod.unmeshed,
        closed: pod.closed,
        error: &pod.error,
    });
    Ok(line? + "\n")
}

#[derive(Serialize)]
struct Pod<'a> {
    name: String,
    node: &'a str,
    enrolled: bool,
    state: &'a str,
    reason: &'a str,
    unmeshed: u32,
    closed: u32,
    error: &'a str,
}

fn name(pod: &v1::PodEnrollment) -> String {
    let name = pod.name.as_ref();
    name.map(|it| format!("{}/{}", it.namespace, it.name)).unwrap_or_default()
}

fn connections(count: u32) -> String {
    if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_and_what_was_done() -> serde_json::Result<()> {
        let captured = v1::PodEnrollment {
            name: Some(v1::NamespacedName { namespace: "shop".into(), name: "web".into() }),
            node: "node-2".into(),
            enrolled: true,
            state: "captured".into(),
            ..Default::default()
        };
        let text = |pod: &v1::PodEnrollment, closing| line(pod, closing, Palette::plain());
        assert_eq!(text(&captured, true), "shop/web: captured, no connections from before\n");
        let open = v1::PodEnrollment { unmeshed: 1, ..captured.clone() };
        assert_eq!(text(&open, false), "shop/web: captured, 1 connection from before\n");
        let ended = v1::PodEnrollment { closed: 2, ..captured.clone() };
        assert_eq!(text(&ended, true), "shop/web: captured, 2 connections from before ended\n");
        let error = v1::PodEnrollment { error: "no right".into(), ..captured.clone() };
        assert_eq!(text(&error, true), "shop/web: captured, no right\n");
        let outside = v1::PodEnrollment { enrolled: false, state: String::new(), ..captured };
        assert_eq!(text(&outside, true), "shop/web: not in the mesh\n");
        assert_eq!(
            json(&open)?,
            "{\"name\":\"shop/web\",\"node\":\"node-2\",\"enrolled\":true,\"state\":\"captured\",\
             \"reason\":\"\",\"unmeshed\":1,\"closed\":0,\"error\":\"\"}\n"
        );
        Ok(())
    }
}
