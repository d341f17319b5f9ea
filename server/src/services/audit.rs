//! The one way by which a change leaves its trace.

use crate::store::{AuditEntry, SharedStore};
use kiops_app::backend::Caller;

/// Who changed what. The change is done already, so a trace that cannot be written is said in the log and fails nothing.
pub async fn changed(
    store: &SharedStore,
    caller: &Caller,
    action: &'static str,
    subject: &str,
    detail: serde_json::Value,
) {
    let entry = AuditEntry { org_id: &caller.org_id, user_id: Some(&caller.user_id), action, subject, detail };
    if let Err(error) = store.audit(entry).await {
        tracing::error!(action, subject, user = caller.name, "a change is missing in the audit log: {error}");
    }
}
