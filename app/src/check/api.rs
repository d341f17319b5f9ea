//! Server functions of this feature: caller, one call, the error mapped.

use crate::error::Problem;
use crate::model::CheckReport;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(feature = "ssr")]
use crate::call::{answer, backend, caller, give_back, now_ms, plain_redirect};
#[cfg(feature = "ssr")]
use crate::locales::{current, tell_findings};

#[cfg(feature = "ssr")]
const PAGE: &str = "/settings/check";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// In the reader's words.
    pub report: Option<CheckReport>,
    /// Server clock.
    pub now_ms: i64,
}

#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn last_check() -> Result<Checked, Problem> {
    let mut report = answer(backend()?.system.last_check(&caller()?).await)?;
    if let Some(report) = &mut report {
        tell_findings(current(), report);
    }
    Ok(Checked { report, now_ms: now_ms() })
}

/// What it finds is read like the last one.
#[server(prefix = "/api/fn")]
pub async fn run_check() -> Result<(), Problem> {
    let (backend, caller) = (backend()?, answer(caller())?);
    give_back("check", PAGE, &[], backend.system.check(&caller).await)?;
    plain_redirect(PAGE);
    Ok(())
}
