//! Which backend a request goes to, and whether a mirror gets a copy.

use crate::model::{Backend, Share};

/// The backend for a request, by weight; `None` where there is none or none weighs anything.
///
/// `random` is evenly spread over all of its values.
pub fn choose(backends: &[Backend], random: u64) -> Option<&Backend> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut left = scaled(random, total)?;
    backends.iter().find(|backend| match left.checked_sub(u64::from(backend.weight)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

/// Whether one of a share of all requests is this one.
pub fn is_in(share: Share, random: u64) -> bool {
    let denominator = u64::from(share.denominator.get());
    scaled(random, denominator).is_some_and(|it| it < u64::from(share.numerator))
}

/// A number below `end`, as evenly spread as `random`; `None` where there is none.
fn scaled(random: u64, end: u64) -> Option<u64> {
    let product = u128::from(random) * u128::from(end);
    (end > 0).then_some((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BackendTarget;

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let backend = |weight: &u32| Backend {
            target: BackendTarget::Invalid("only weights matter".into()),
            weight: *weight,
            filters: Vec::new(),
        };
        weights.iter().map(backend).collect()
    }

    /// How many of `tries` evenly spread numbers choose each backend.
    fn shares(weights: &[u32], tries: u64) -> Vec<u64> {
        let backends = backends(weights);
        let mut shares = vec![0; weights.len()];
        for at in 0..tries {
            let random = (u128::from(2 * at + 1) << 63) / u128::from(tries);
            let chosen = choose(&backends, random as u64).expect("something weighs");
            let index = backends.iter().position(|it| std::ptr::eq(it, chosen));
            shares[index.expect("one of them")] += 1;
        }
        shares
    }

    #[test]
    fn shares_follow_weights() {
        assert_eq!(shares(&[1, 1], 1000), [500, 500]);
        assert_eq!(shares(&[9, 1], 1000), [900, 100]);
        assert_eq!(shares(&[0, 7, 0], 1000), [0, 1000, 0]);
        assert_eq!(shares(&[u32::MAX, u32::MAX], 1000), [500, 500]);
    }

    #[test]
    fn nothing_is_chosen_where_nothing_weighs() {
        for random in [0, u64::MAX] {
            assert_eq!(choose(&[], random), None);
            assert_eq!(choose(&backends(&[0, 0]), random), None);
        }
    }

    #[test]
    fn a_share_of_all_and_of_none() {
        let share = |numerator, denominator: u32| Share {
            numerator,
            denominator: denominator.try_into().expect("not zero"),
        };
        for random in [0, 1, u64::MAX] {
            assert!(is_in(share(100, 100), random));
            assert!(!is_in(share(0, 100), random));
        }
        assert!(is_in(share(1, 2), u64::MAX / 2));
        assert!(!is_in(share(1, 2), u64::MAX / 2 + 1));
    }
}
