//! The one way by which a change leaves its trace.

use crate::store::{AuditEntry, SharedStore};
use kiops_app::backend::Caller;
use kiops_app::model::{OrgId, UserId};

/// Who changed something: a person, or the server itself for whoever runs it.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    pub org_id: &'a OrgId,
    pub user_id: Option<&'a UserId>,
}

impl<'a> From<&'a Caller> for By<'a> {
    fn from(caller: &'a Caller) -> Self {
        Self { org_id: &caller.org_id, user_id: Some(&caller.user_id) }
    }
}

/// Who changed what. The change is done already, so a trace that cannot be written is said in the log and fails nothing.
pub async fn changed(
    store: &SharedStore,
    by: impl Into<By<'_>>,
    action: &'static str,
    subject: &str,
    detail: serde_json::Value,
) {
    let By { org_id, user_id } = by.into();
    let entry = AuditEntry { org_id, user_id, action, subject, detail };
    if let Err(error) = store.audit(entry).await {
        let by = user_id.map(UserId::as_str);
        tracing::error!(action, subject, by, "a change is missing in the audit log: {error}");
    }
}
