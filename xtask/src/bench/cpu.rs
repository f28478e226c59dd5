//! CPU time, as the kernel accounts it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

/// What everything in `cgroup` has used (`cpu.stat` of cgroup v2).
pub fn of_cgroup(cgroup: &Path) -> Result<Duration> {
    let stat = fs::read_to_string(cgroup.join("cpu.stat"))?;
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Ok(Duration::from_micros(usage.context("no usage_usec in cpu.stat")?.parse()?))
}

/// What the threads of `processes` have used: the first figure of each `schedstat`, nanoseconds.
pub fn of_processes(processes: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in processes {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("process {pid} has ended"))?;
        for thread in threads {
            let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanos = stat.split_whitespace().next().context("an empty schedstat")?;
            total += Duration::from_nanos(nanos.parse()?);
        }
    }
    Ok(total)
}
