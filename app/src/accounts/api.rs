//! Server functions of this feature: caller, one call, the error mapped.

use crate::error::Problem;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(feature = "ssr")]
use crate::call::{answer, backend, give_back, own_page, session_token, set_session};
#[cfg(feature = "ssr")]
use crate::ui::query::Query;

/// Whoever uses the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub name: String,
}

#[server(prefix = "/api/fn")]
pub async fn who_am_i() -> Result<Option<Session>, Problem> {
    Ok(crate::call::caller().ok().map(|caller| Session { name: caller.name }))
}

#[server(prefix = "/api/fn")]
pub async fn sign_in(
    #[server(default)] user: String,
    #[server(default)] password: String,
    #[server(default)] next: String,
) -> Result<(), Problem> {
    let result = match backend() {
        Ok(backend) => backend.accounts.sign_in(user.trim(), &password).await,
        Err(problem) => Err(problem),
    };
    let page = format!("/sign-in?{}", Query::default().with("next", &next));
    let token = give_back("sign_in", &page, &[("user", &user)], result)?;
    set_session(Some(&token));
    leptos_axum::redirect(own_page(&next));
    Ok(())
}

#[server(prefix = "/api/fn")]
pub async fn sign_out() -> Result<(), Problem> {
    if let Some(token) = session_token() {
        answer(backend()?.accounts.sign_out(&token).await)?;
    }
    set_session(None);
    leptos_axum::redirect("/sign-in");
    Ok(())
}

#[server(prefix = "/api/fn")]
pub async fn link_is_open(link: String) -> Result<bool, Problem> {
    answer(backend()?.accounts.link_is_open(&link).await)
}

#[server(prefix = "/api/fn")]
pub async fn set_password(
    #[server(default)] link: String,
    #[server(default)] password: String,
    #[server(default)] again: String,
) -> Result<(), Problem> {
    let result = match backend() {
        Ok(_) if password != again => Err(Problem::invalid("passwords_differ", "again")),
        Ok(backend) => backend.accounts.set_password(&link, &password).await,
        Err(problem) => Err(problem),
    };
    let page = format!("/setup/{}", crate::ui::query::encode(&link));
    let token = give_back("set_password", &page, &[], result)?;
    set_session(Some(&token));
    leptos_axum::redirect("/services");
    Ok(())
}
