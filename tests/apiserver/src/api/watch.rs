//! Watches: a line of JSON for each change, until the time is over or somebody cuts it.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};

use super::{Answer, line, list::Selection, read};
use crate::{
    accept::Form,
    cluster::Cluster,
    convert::present,
    error::ApiError,
    fault::Cut,
    meta,
    registry::Resource,
    request::Request,
    route::Target,
    store::{Event, Store},
    table::{self, Include},
};

/// The lines of a watch; an error ends the connection without a proper end of the answer.
pub type Frames = mpsc::Receiver<io::Result<Frame<Bytes>>>;

/// How long a watch without `timeoutSeconds` may last. The real server takes 30 to 60 minutes.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// What half an event needs at most to get out before the connection ends.
const FLUSH: Duration = Duration::from_millis(50);

/// Begins a watch; `cut` are the cuts before it.
pub fn watch(
    cluster: &Arc<Cluster>,
    request: &Request,
    target: &Target,
    cut: Cut,
) -> Result<Answer, ApiError> {
    let mut watch = Watch::new(cluster, request, target, cut)?;
    let first = watch.begin(request)?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        // An error says that the client is gone: nobody is left to be told.
        let _ = watch.run(first, sender).await;
    });
    Ok(Answer::Stream(receiver))
}

struct Watch {
    cluster: Arc<Cluster>,
    resource: Arc<Resource>,
    namespace: Option<String>,
    selection: Selection,
    output: Output,
    bookmarks: bool,
    end: Instant,
    /// The last revision that the client knows of.
    revision: u64,
    /// The cuts that were before this watch.
    cut: Cut,
}

/// How objects are written.
struct Output {
    resource: Arc<Resource>,
    form: Form,
    include: Include,
    /// Tables define their columns once.
    defined: bool,
}

/// The client went away, or the watch was cut.
struct Ended;

type Sender = mpsc::Sender<io::Result<Frame<Bytes>>>;

impl Watch {
    fn new(
        cluster: &Arc<Cluster>,
        request: &Request,
        target: &Target,
        cut: Cut,
    ) -> Result<Self, ApiError> {
        let timeout = request.query.number("timeoutSeconds")?.filter(|&seconds| seconds > 0);
        let resource = target.resource.clone();
        Ok(Self {
            cluster: cluster.clone(),
            resource: resource.clone(),
            namespace: target.namespace.clone(),
            selection: Selection::of(request, target)?,
            output: Output {
                resource,
                form: request.form()?,
                include: read::include(request)?,
                defined: false,
            },
            bookmarks: request.query.is_on("allowWatchBookmarks"),
            end: Instant::now() + timeout.map_or(LONGEST, Duration::from_secs),
            revision: 0,
            cut,
        })
    }

    /// Finds out where to start, and what has to be said before the first change.
    fn begin(&mut self, request: &Request) -> Result<Vec<Value>, ApiError> {
        let store = self.cluster.store.lock();
        let asked = request.query.number("resourceVersion")?;
        let current = store.revision();
        if self.cluster.faults.watch_is_gone() {
            return Err(too_old(asked.unwrap_or_default(), current));
        }
        if let Some(asked) = asked.filter(|&asked| asked > current) {
            return Err(ApiError::too_large_version(asked, current));
        }
        let initial = request.query.is_on("sendInitialEvents");
        if initial && request.query.get("resourceVersionMatch") != Some("NotOlderThan") {
            return Err(ApiError::bad_request(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let asked = asked.filter(|&asked| asked > 0 && !initial);
        if let Some(asked) = asked {
            self.revision = asked;
            // What is too old is said by an event, as the real server does: see `run`.
            return Ok(Vec::new());
        }
        self.revision = current;
        // No version, or 0: what there is comes first, as if it had just been added.
        if request.query.get("sendInitialEvents") == Some("false") {
            return Ok(Vec::new());
        }
        let all = store.list(&self.resource.storage, self.namespace.as_deref());
        drop(store);
        let mut first = Vec::new();
        for (_, object) in all {
            if self.selection.matches(&self.resource, &object) {
                first.push(self.output.event("ADDED", &object));
            }
        }
        if initial && self.bookmarks {
            let mut bookmark = self.bookmark();
            bookmark["object"]["metadata"]["annotations"] =
                json!({ "k8s.io/initial-events-end": "true" });
            first.push(bookmark);
        }
        Ok(first)
    }

    async fn run(mut self, first: Vec<Value>, sender: Sender) -> Result<(), Ended> {
        for event in &first {
            send(&sender, line(event)).await?;
        }
        let mut revisions = self.cluster.store.subscribe();
        let mut cuts = self.cluster.faults.cuts();
        let every = self.cluster.settings.bookmarks;
        let mut bookmarks = interval_at(Instant::now() + every, every);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            revisions.mark_unchanged();
            cuts.mark_unchanged();
            let cut = *cuts.borrow();
            self.obey(cut, &sender).await?;
            match self.news(&self.cluster.store) {
                Ok((events, revision)) => {
                    for event in events {
                        self.tell(&event, &sender).await?;
                    }
                    self.revision = revision;
                }
                Err(error) => return self.fail(&error, &sender).await,
            }
            let ended = tokio::select! {
                changed = revisions.changed() => changed.is_err(),
                changed = cuts.changed() => changed.is_err(),
                _ = bookmarks.tick(), if self.bookmarks => {
                    send(&sender, line(&self.bookmark())).await?;
                    false
                }
                () = sleep_until(self.end) => true,
                () = sender.closed() => return Err(Ended),
            };
            if ended {
                if self.bookmarks {
                    send(&sender, line(&self.bookmark())).await?;
                }
                return Ok(());
            }
        }
    }

    /// What happened since the last look, and until when.
    fn news(&self, store: &Store) -> Result<(Vec<Event>, u64), ApiError> {
        let store = store.lock();
        let (known, current) = (self.revision, store.revision());
        let events = store.events_after(known).map_err(|_| too_old(known, current))?;
        let namespace = self.namespace.as_deref();
        let ours = events.filter(|event| {
            event.key.resource == self.resource.storage
                && namespace.is_none_or(|namespace| event.key.namespace == namespace)
        });
        Ok((ours.cloned().collect(), current))
    }

    /// Sends a change, if it is one for who has selected.
    async fn tell(&mut self, event: &Event, sender: &Sender) -> Result<(), Ended> {
        let selects = |object: &&Value| self.selection.matches(&self.resource, object);
        let old = event.old.as_deref().filter(selects);
        let new = event.new.as_deref().filter(selects);
        let event = match (old, new) {
            (None, None) => return Ok(()),
            (None, Some(new)) => self.output.event("ADDED", new),
            (Some(_), Some(new)) => self.output.event("MODIFIED", new),
            (Some(_), None) if event.new.is_none() => self.output.event("DELETED", &event.last),
            // It is there and no longer selected: the last state that was.
            (Some(old), None) => {
                let mut old = old.clone();
                old["metadata"]["resourceVersion"] = event.revision.to_string().into();
                self.output.event("DELETED", &old)
            }
        };
        let line = line(&event);
        let cut = *self.cluster.faults.cuts().borrow();
        if cut.in_event == self.cut.in_event {
            return send(sender, line).await;
        }
        send(sender, line.slice(..line.len() / 2)).await?;
        break_off(sender).await
    }

    /// Does what tests asked for.
    async fn obey(&mut self, cut: Cut, sender: &Sender) -> Result<(), Ended> {
        if cut.now != self.cut.now {
            return break_off(sender).await;
        }
        if cut.gone != self.cut.gone {
            let current = self.cluster.store.lock().revision();
            self.fail(&too_old(self.revision, current), sender).await?;
            return Err(Ended);
        }
        if cut.bookmark != self.cut.bookmark && self.bookmarks {
            send(sender, line(&self.bookmark())).await?;
        }
        self.cut.bookmark = cut.bookmark;
        Ok(())
    }

    /// Says what is wrong and ends the watch properly.
    async fn fail(&self, error: &ApiError, sender: &Sender) -> Result<(), Ended> {
        send(sender, line(&json!({ "type": "ERROR", "object": error.status() }))).await
    }

    /// An event that says up to where nothing was missed.
    fn bookmark(&self) -> Value {
        let object = json!({
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version(),
            "metadata": {
                "resourceVersion": self.revision.to_string(),
                "creationTimestamp": null,
            },
        });
        let object = match self.output.form {
            Form::Plain | Form::Aggregated => object,
            Form::Metadata => meta::partial(&object),
            Form::Table => {
                let list = json!({ "resourceVersion": self.revision.to_string() });
                table::table(&[], &[], list, Include::None)
            }
        };
        json!({ "type": "BOOKMARK", "object": object })
    }
}

impl Output {
    fn event(&mut self, kind: &str, object: &Value) -> Value {
        let object = present(&self.resource, object);
        let object = match self.form {
            Form::Plain | Form::Aggregated => object.into_owned(),
            Form::Metadata => meta::partial(&object),
            Form::Table => {
                let list = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                let mut table =
                    table::table(&self.resource.columns, &[&*object], list, self.include);
                if self.defined {
                    table["columnDefinitions"] = Value::Null;
                }
                self.defined = true;
                table
            }
        };
        json!({ "type": kind, "object": object })
    }
}

fn too_old(asked: u64, current: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {asked} ({current})"))
}

async fn send(sender: &Sender, line: Bytes) -> Result<(), Ended> {
    sender.send(Ok(Frame::data(line))).await.map_err(|_| Ended)
}

/// Ends the connection in the middle of the answer.
async fn break_off(sender: &Sender) -> Result<(), Ended> {
    // hyper writes out what it has when the body has nothing more for the moment, and throws it
    // away when the body fails.
    sleep(FLUSH).await;
    let _ = sender.send(Err(io::Error::other("the watch was cut"))).await;
    Err(Ended)
}
