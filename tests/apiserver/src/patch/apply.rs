//! Server-side apply: who owns which field, what a manager adds, takes over and gives up.

mod fields;
mod managed;
mod walk;

use serde_json::Value;

use self::{fields::Fields, managed::Entry};
pub use self::{
    managed::{Managed, Who},
    walk::Types,
};
use crate::error::{ApiError, Cause};

/// An object after an apply, and who owns what in it.
pub struct Applied {
    pub object: Value,
    pub managed: Managed,
}

/// Lays what a manager wants over an object, and removes what it no longer wants and nobody else
/// owns. Fields of others that it would change are a conflict, unless it takes them by force.
pub fn apply(
    types: &Types<'_>,
    who: &Who,
    live: &Value,
    wanted: &Value,
    force: bool,
) -> Result<Applied, ApiError> {
    let mut managed = Managed::of(live);
    let set = types.fields_of(&contents(wanted));
    let before = managed.fields(who);
    let others = managed.others(who).fold(Fields::default(), |all, entry| all.union(&entry.fields));
    let gone = before.difference(&set).difference(&others);
    let mut object = types.merge(live, wanted);
    types.remove(&mut object, &gone);

    let changes = types.compare(&contents(live), &contents(&object));
    let conflicts: Vec<_> = managed
        .others(who)
        .map(|entry| (entry.who.clone(), entry.fields.intersection(&changes.changed)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflict(&managed, &conflicts));
    }
    for (other, fields) in &conflicts {
        managed.take(other, fields);
    }
    managed.take_from_all(who, &changes.removed);
    managed.set(who, set);
    Ok(Applied { object, managed })
}

/// Who owns what after a write that was no apply: the writer owns what it changed.
pub fn written(types: &Types<'_>, who: &Who, old: &Value, new: &Value) -> Managed {
    let mut managed = Managed::of(old);
    let changes = types.compare(&contents(old), &contents(new));
    managed.take_from_all(who, &changes.removed);
    managed.take_from_all(who, &changes.changed);
    let own = managed.fields(who).difference(&changes.removed).union(&changes.changed);
    managed.set(who, own);
    managed
}

/// Who owns what in a new object: its creator, all that it asked for.
pub fn created(types: &Types<'_>, who: &Who, object: &Value) -> Managed {
    let mut managed = Managed::default();
    managed.set(who, types.fields_of(&contents(object)));
    managed
}

/// An object without what nobody owns: its name, version and what the server itself writes.
fn contents(object: &Value) -> Value {
    let mut object = object.clone();
    let Some(fields) = object.as_object_mut() else { return object };
    fields.remove("apiVersion");
    fields.remove("kind");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| {
            !matches!(
                name.as_str(),
                "name"
                    | "namespace"
                    | "uid"
                    | "resourceVersion"
                    | "generation"
                    | "creationTimestamp"
                    | "deletionTimestamp"
                    | "deletionGracePeriodSeconds"
                    | "managedFields"
                    | "selfLink"
            )
        });
        if metadata.is_empty() {
            fields.remove("metadata");
        }
    }
    object
}

/// The error, worded as the real server does.
fn conflict(managed: &Managed, conflicts: &[(Who, Fields)]) -> ApiError {
    let mut causes = Vec::new();
    let mut messages = Vec::new();
    for (who, fields) in conflicts {
        let name = managed.entry(who).map(Entry::describe).unwrap_or_default();
        let paths = fields.paths();
        for path in &paths {
            causes.push(Cause {
                reason: "FieldManagerConflict",
                field: path.clone(),
                message: format!("conflict with {name}"),
            });
        }
        messages.push((name, paths));
    }
    let message = match &messages[..] {
        [(name, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {name}: {}", paths[0])
        }
        many => {
            let lists: Vec<_> = many
                .iter()
                .map(|(name, paths)| format!("conflicts with {name}:\n- {}", paths.join("\n- ")))
                .collect();
            format!("Apply failed with {} conflicts: {}", causes.len(), lists.join("\n"))
        }
    };
    ApiError::apply_conflict(message, &causes)
}

#[cfg(test)]
mod tests;
