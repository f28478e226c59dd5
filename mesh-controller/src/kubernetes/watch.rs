//! One resource, listed and then watched, for ever.
//!
//! Not kube's reflector: that one decodes a page as a whole, connects again at once and without
//! end where a server closes watches as they open, and keeps nothing apart that an operator has to
//! be told. Here every object is decoded by itself, a page at a time, and each end of a watch costs
//! a wait.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::{
    Client,
    api::{ListParams, WatchEvent, WatchParams},
    core::Request,
};
use serde::Deserialize;
use serde_json::Value;

use super::{ApiError, Resource, Verb, backoff::Backoff};

/// Objects a page: what kubectl asks for, and a few MB of pods.
const PAGE: u32 = 500;
/// How long a page may take to arrive.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// A watch is opened anew after so long, and a little more by chance, so that a connection that
/// died silently is noticed and no two watches end together.
const WATCH_SECONDS: u32 = 150;
const WATCH_SECONDS_MORE: u32 = 60;
/// How much later than agreed the server may end a watch.
const WATCH_GRACE: Duration = Duration::from_secs(10);

/// What happened to the objects of a resource.
#[derive(Debug)]
pub enum Change<T> {
    /// These are all, and what was there before is gone.
    Listed(Vec<T>),
    /// New, or a new version.
    Applied(T),
    /// Gone; as it was last.
    Deleted(T),
}

/// Follows one resource.
pub struct Watcher<'a> {
    client: Client,
    resource: &'a Resource,
    /// Where the server has it.
    path: &'a str,
    backoff: Backoff,
    /// The version that is known, from which a watch goes on; `None` to list again.
    version: Option<String>,
    is_listed: bool,
    /// The server had no such kind when it was last asked for a list.
    is_missing: bool,
    /// A list that takes longer than the server remembers its pages is asked for in one piece.
    in_one_piece: bool,
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    // The Go client writes an empty list as null.
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: String,
    r#continue: String,
}

/// What a watcher tells.
pub trait Observer: Send {
    /// What an object is turned into, one at a time, so that a page of JSON is never kept.
    type Item: Send;

    /// Decodes one object.
    fn decode(&self, object: Value) -> Self::Item;
    /// Takes a change, and waits where its reader is behind; `false` where there is none any more.
    fn changed(&mut self, change: Change<Self::Item>) -> impl Future<Output = bool> + Send;
    /// Takes what is wrong, or that all is well again.
    fn is_well(&mut self, trouble: Option<&ApiError>);
}

impl<'a> Watcher<'a> {
    /// A watcher of `resource`.
    pub fn new(client: Client, resource: &'a Resource) -> Self {
        Self {
            client,
            resource,
            path: &resource.path,
            backoff: Backoff::default(),
            version: None,
            is_listed: false,
            is_missing: false,
            in_one_piece: false,
        }
    }

    /// Follows until `observer` wants no more.
    pub async fn follow(mut self, mut observer: impl Observer) {
        loop {
            let started = Instant::now();
            let result = match self.version.clone() {
                None => self.list_some(&mut observer).await,
                Some(version) => self.watch(version, &mut observer).await,
            };
            let asked = match &result {
                Ok(Next::Now) => continue,
                Ok(Next::Later) => None,
                Ok(Next::Over) => return,
                Err(ApiError::Gone { .. }) => {
                    self.in_one_piece = self.version.is_none();
                    self.version = None;
                    None
                }
                Err(error) => {
                    // What the server does not have, it has no objects of. Later, when there were
                    // some, it may be that it merely does not serve the kind yet.
                    if matches!(error, ApiError::NotFound { .. }) {
                        self.is_missing |= self.version.is_none();
                        self.version = None;
                        if !self.is_listed && !observer.changed(Change::Listed(Vec::new())).await {
                            return;
                        }
                    }
                    observer.is_well(Some(error));
                    error.retry_after()
                }
            };
            tokio::time::sleep(self.backoff.next(started.elapsed(), asked)).await;
        }
    }

    /// Lists the newest version that the server has.
    async fn list_some(&mut self, observer: &mut impl Observer) -> Result<Next, ApiError> {
        let resource = self.resource;
        let mut result = Ok(Next::Later);
        for path in resource.paths() {
            self.path = path;
            result = self.list(observer).await;
            if !matches!(result, Err(ApiError::NotFound { .. })) {
                break;
            }
        }
        result
    }

    async fn list(&mut self, observer: &mut impl Observer) -> Result<Next, ApiError> {
        let name = &self.resource.name;
        let request = Request::new(self.path);
        let mut items = Vec::new();
        let mut parameters = ListParams {
            limit: (!self.in_one_piece).then_some(PAGE),
            label_selector: self.resource.labels.map(str::to_owned),
            ..ListParams::default()
        };
        let version = loop {
            let page = request.list(&parameters).map_err(kube::Error::BuildRequest);
            let page = async { self.client.request::<Page>(page?).await };
            let page = match tokio::time::timeout(PAGE_TIMEOUT, page).await {
                Ok(page) => page.map_err(|error| ApiError::new(Verb::List, name, &error))?,
                Err(_) => return Err(ApiError::away(Verb::List, name, "no answer in time")),
            };
            let objects = page.items.unwrap_or_default();
            items.extend(objects.into_iter().map(|object| observer.decode(object)));
            if page.metadata.r#continue.is_empty() {
                break page.metadata.resource_version;
            }
            parameters.continue_token = Some(page.metadata.r#continue);
        };
        self.in_one_piece = false;
        self.is_listed = true;
        // Waits have grown since nobody knew when the kind would come. Now that it is there the server
        // refuses to watch it for a moment, while its storage begins.
        if std::mem::take(&mut self.is_missing) {
            self.backoff.reset();
        }
        self.version = Some(version);
        observer.is_well(None);
        Ok(if observer.changed(Change::Listed(items)).await { Next::Now } else { Next::Over })
    }

    async fn watch(
        &mut self,
        version: String,
        observer: &mut impl Observer,
    ) -> Result<Next, ApiError> {
        let name = &self.resource.name;
        let failed = |error: &kube::Error| ApiError::new(Verb::Watch, name, error);
        let seconds = WATCH_SECONDS + fastrand::u32(..WATCH_SECONDS_MORE);
        let parameters = WatchParams {
            timeout: Some(seconds),
            bookmarks: true,
            label_selector: self.resource.labels.map(str::to_owned),
            ..WatchParams::default()
        };
        let request = Request::new(self.path).watch(&parameters, &version);
        let request = request.map_err(|error| failed(&kube::Error::BuildRequest(error)))?;
        let started = Instant::now();
        let limit = Duration::from_secs(seconds.into()) + WATCH_GRACE;
        let events = self.client.request_events::<Value>(request);
        let events = tokio::time::timeout(PAGE_TIMEOUT, events).await;
        let events = events.map_err(|_| ApiError::away(Verb::Watch, name, "no answer in time"))?;
        let mut events = std::pin::pin!(events.map_err(|error| failed(&error))?);
        observer.is_well(None);
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let Ok(Some(event)) = tokio::time::timeout(left, events.next()).await else {
                return Ok(Next::Later);
            };
            // A line that makes no sense is asked for again: the version has not moved on.
            let change = match event.map_err(|error| failed(&error))? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.version = Some(version_of(&object).unwrap_or_else(|| version.clone()));
                    Change::Applied(observer.decode(object))
                }
                WatchEvent::Deleted(object) => {
                    self.version = Some(version_of(&object).unwrap_or_else(|| version.clone()));
                    Change::Deleted(observer.decode(object))
                }
                WatchEvent::Bookmark(bookmark) => {
                    self.version = Some(bookmark.metadata.resource_version);
                    continue;
                }
                WatchEvent::Error(status) => {
                    return Err(ApiError::of_status(Verb::Watch, name, &status));
                }
            };
            if !observer.changed(change).await {
                return Ok(Next::Over);
            }
            self.backoff.reset();
        }
    }
}

enum Next {
    Now,
    Later,
    Over,
}

fn version_of(object: &Value) -> Option<String> {
    object.pointer("/metadata/resourceVersion")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;
