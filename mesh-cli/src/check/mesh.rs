//! Whether what is installed works.

use anyhow::Result;

use crate::{
    checklist::Checklist,
    cluster::Cluster,
    rollout::{self, Component},
};

pub(super) async fn check(cluster: &Cluster, list: &mut Checklist) -> Result<()> {
    list.section("nodemesh");
    for component in Component::ALL {
        let Some(workload) = cluster.get(&component.path()).await? else {
            list.bad(format!("{}: not installed", component.title()), "nodemesh install");
            continue;
        };
        let progress = component.progress(&workload);
        let what =
            format!("{}: {} of {} ready", component.title(), progress.ready, progress.desired);
        if progress.is_complete() {
            list.good(what);
            continue;
        }
        let problems = rollout::pod_problems(&rollout::pods(cluster, component).await?);
        list.bad(what, problems.join("; "));
    }
    Ok(())
}
