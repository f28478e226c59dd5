//! A metric family that cannot outgrow a limit.
//!
//! A full family gives up the series that nobody counted into for a while; where that frees
//! nothing, new label sets are counted together, under their overflow labels.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter},
};

use super::Labels;

/// A series that nobody counted into for this long may go when space is needed.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// A full family is searched for idle series this often, not at every connection.
const SEARCH_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Bounded<L, V> {
    table: RwLock<Table<L, V>>,
    limit: usize,
    started: Instant,
    overflows: AtomicU64,
}

#[derive(Debug)]
struct Table<L, V> {
    series: HashMap<L, Series<V>>,
    searched: Option<Instant>,
}

#[derive(Debug)]
struct Series<V> {
    value: V,
    /// Seconds after `started`.
    used: AtomicU64,
}

impl<L: Labels, V: Default> Bounded<L, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            table: RwLock::new(Table { series: HashMap::new(), searched: None }),
            limit,
            started: Instant::now(),
            overflows: AtomicU64::new(0),
        }
    }

    /// Lets `change` count into the series of `labels`.
    pub(super) fn update(&self, labels: L, change: impl FnOnce(&V)) {
        self.update_at(Instant::now(), labels, change);
    }

    /// The same for what was counted once already and goes on: where it is counted under its
    /// overflow labels, that is not told again.
    pub(super) fn update_more(&self, labels: &L, change: impl FnOnce(&V)) {
        let now = Instant::now();
        if let Some(change) = self.update_known(now, labels, change) {
            self.update_new(now, labels.clone(), change);
        }
    }

    /// How often labels were given up for lack of space.
    pub(super) fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// Writes the number that `count` picks of every series, as a counter called `name`.
    pub(super) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        count: fn(&V) -> &AtomicU64,
    ) -> Result<(), std::fmt::Error> {
        self.encode_as(encoder, name, help, MetricType::Counter, |value, metric| {
            ConstCounter::new(count(value).load(Ordering::Relaxed)).encode(metric)
        })
    }

    /// Lets `write` write every series, as a metric called `name` of that kind.
    pub(super) fn encode_as(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl Fn(&V, MetricEncoder<'_>) -> Result<(), std::fmt::Error>,
    ) -> Result<(), std::fmt::Error> {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        for (labels, series) in &table.series {
            write(&series.value, metric.encode_family(&LabelSet(labels))?)?;
        }
        Ok(())
    }

    fn update_at(&self, now: Instant, labels: L, change: impl FnOnce(&V)) {
        if let Some(change) = self.update_known(now, &labels, change)
            && !self.update_new(now, labels, change)
        {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts into a series that is there; gives `change` back where it is not.
    fn update_known<C: FnOnce(&V)>(&self, now: Instant, labels: &L, change: C) -> Option<C> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let Some(series) = table.series.get(labels) else { return Some(change) };
        series.used.store(self.second(now), Ordering::Relaxed);
        change(&series.value);
        None
    }

    /// Counts into a new series, or under the overflow labels; whether there was space.
    fn update_new(&self, now: Instant, labels: L, change: impl FnOnce(&V)) -> bool {
        let second = self.second(now);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have made it meanwhile.
        let has_space =
            table.series.contains_key(&labels) || table.has_space(self.limit, now, second);
        let labels = if has_space { labels } else { labels.overflow() };
        let new = || Series { value: V::default(), used: AtomicU64::new(second) };
        let series = table.series.entry(labels).or_insert_with(new);
        series.used.store(second, Ordering::Relaxed);
        change(&series.value);
        has_space
    }

    fn second(&self, now: Instant) -> u64 {
        now.duration_since(self.started).as_secs()
    }
}

impl<L: Labels, V> Table<L, V> {
    fn has_space(&mut self, limit: usize, now: Instant, second: u64) -> bool {
        let pausing = self.searched.is_some_and(|at| now.duration_since(at) < SEARCH_PAUSE);
        if self.series.len() >= limit && !pausing {
            self.searched = Some(now);
            let idle =
                |series: &Series<V>| second - series.used.load(Ordering::Relaxed).min(second);
            self.series.retain(|_, series| idle(series) < IDLE.as_secs());
        }
        self.series.len() < limit
    }
}

struct LabelSet<'a, L>(&'a L);

impl<L: Labels> EncodeLabelSet for LabelSet<'_, L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::EncodeLabel;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    enum Label {
        Number(u32),
        Other,
    }

    impl Labels for Label {
        fn overflow(&self) -> Self {
            Self::Other
        }

        fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
            ("number", format!("{self:?}")).encode(encoder.encode_label())
        }
    }

    fn count(value: &AtomicU64) {
        value.fetch_add(1, Ordering::Relaxed);
    }

    fn value(family: &Bounded<Label, AtomicU64>, label: &Label) -> Option<u64> {
        let table = family.table.read().expect("not poisoned");
        table.series.get(label).map(|series| series.value.load(Ordering::Relaxed))
    }

    #[test]
    fn idle_series_make_room() {
        let family = Bounded::<Label, AtomicU64>::new(2);
        let start = family.started;
        family.update_at(start, Label::Number(1), count);
        family.update_at(start + IDLE, Label::Number(2), count);
        family.update_at(start + IDLE, Label::Number(3), count);
        assert_eq!(value(&family, &Label::Number(1)), None);
        assert_eq!(value(&family, &Label::Number(3)), Some(1));
        family.update_at(start + IDLE, Label::Number(4), count);
        assert_eq!((value(&family, &Label::Other), family.overflows()), (Some(1), 1));
    }

    #[test]
    fn what_goes_on_is_counted_anew_where_its_series_gave_way() {
        let family = Bounded::<Label, AtomicU64>::new(1);
        family.update(Label::Number(1), count);
        family.update(Label::Number(2), count);
        assert_eq!((value(&family, &Label::Other), family.overflows()), (Some(1), 1));
        family.update_more(&Label::Number(2), count);
        assert_eq!((value(&family, &Label::Other), family.overflows()), (Some(2), 1));

        family.table.write().expect("not poisoned").series.clear();
        family.update_more(&Label::Number(2), count);
        assert_eq!(value(&family, &Label::Number(2)), Some(1), "only what came since");
    }

    proptest! {
        #[test]
        fn stays_within_the_limit_and_loses_no_count(
            limit in 1..8_usize,
            labels in proptest::collection::vec(0..20_u32, 0..100),
        ) {
            let family = Bounded::<Label, AtomicU64>::new(limit);
            for label in &labels {
                family.update(Label::Number(*label), count);
            }
            let table = family.table.read().expect("not poisoned");
            prop_assert!(table.series.len() <= limit + 1);
            let sum: u64 =
                table.series.values().map(|series| series.value.load(Ordering::Relaxed)).sum();
            prop_assert_eq!(sum, labels.len() as u64);
        }
    }
}
