//! Who somebody is: passwords, sessions, and the one-time link that sets the first password.
//!
//! What is stored can open nothing: of passwords an argon2id hash, of sessions and links the SHA-256 of a random token.
//! A session ends a fixed time after signing in (a day unless configured), however much it is used. What never enters:
//! cookies and headers, and what somebody may do.

mod attempts;
mod passwords;
mod tokens;

use crate::audit::{By, changed};
use crate::clock::now_ms;
use crate::config::Secret;
use crate::problems::{internal, of_store};
use crate::store::{SharedStore, UserRow};
use async_trait::async_trait;
use attempts::Attempts;
use kiops_app::backend::{Accounts, Caller, SessionToken};
use kiops_app::error::{Problem, ProblemStatus, Result};
use passwords::Passwords;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long the one-time link stays open.
pub const LINK_TIME: Duration = Duration::from_secs(24 * 3_600);
/// A password that protects everything a build can reach.
const LEAST_PASSWORD: usize = 10;
const MOST_PASSWORD: usize = 1_024;
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// Accounts that are kept here, not at an identity provider.
pub struct LocalAccounts {
    store: SharedStore,
    passwords: Passwords,
    attempts: Attempts,
    session_time: Duration,
}

impl LocalAccounts {
    pub fn new(store: SharedStore, session_time: Duration) -> Self {
        Self { store, passwords: Passwords::new(), attempts: Attempts::default(), session_time }
    }

    /// What a start does: sets the administrator's password where one is given, else makes a new one-time link while
    /// there is none. Gives the link's token.
    pub async fn prepare(&self, admin_password: Option<&Secret>) -> Result<Option<String>> {
        let administrator = self.store.administrator().await.map_err(|e| of_store("user", e))?;
        if let Some(password) = admin_password {
            self.give_password(&administrator, password).await?;
            return Ok(None);
        }
        if administrator.password_hash.is_some() {
            return Ok(None);
        }
        let token = tokens::new();
        let expires_at = now_ms() + millis(LINK_TIME);
        self.store
            .put_setup_link(&administrator.id, &tokens::hash(&token), expires_at)
            .await
            .map_err(|e| of_store("link", e))?;
        Ok(Some(token))
    }

    /// Hashed anew only when it is another one: every start gives the same password.
    async fn give_password(&self, user: &UserRow, password: &Secret) -> Result<()> {
        if password.expose().len() < LEAST_PASSWORD {
            tracing::warn!("KIOPS_ADMIN_PASSWORD is short: {LEAST_PASSWORD} characters are the least a person may set");
        }
        if self.passwords.matches(password.expose(), user.password_hash.as_deref()).await? {
            return Ok(());
        }
        let hash = self.passwords.hash(password.expose()).await?;
        self.store.set_password_hash(&user.id, &hash).await.map_err(|e| of_store("user", e))?;
        // Whoever starts the server is nobody who has signed in.
        let by = By { org_id: &user.org_id, user_id: None };
        self.trace(by, "account.password", user, json!({ "by": "environment" })).await;
        Ok(())
    }

    async fn trace(&self, by: impl Into<By<'_>>, action: &'static str, user: &UserRow, detail: serde_json::Value) {
        changed(&self.store, by, action, user.id.as_str(), detail).await;
    }

    /// Forgets sessions that are over, until the server ends.
    pub async fn sweep(&self, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.store.drop_expired_sessions().await {
                tracing::warn!("sessions that are over could not be dropped: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// The administrator, as the one for whom the server itself acts.
    pub async fn administrator(&self) -> Result<Caller> {
        Ok(caller_of(self.store.administrator().await.map_err(|e| of_store("user", e))?))
    }

    async fn open_session(&self, user: &UserRow) -> Result<SessionToken> {
        let token = tokens::new();
        let expires_at = now_ms() + millis(self.session_time);
        self.store
            .put_session(&user.id, &tokens::hash(&token), expires_at)
            .await
            .map_err(|e| of_store("session", e))?;
        Ok(SessionToken(token))
    }

    async fn user_of_link(&self, link: &str) -> Result<Option<UserRow>> {
        if !tokens::is_token(link) {
            return Ok(None);
        }
        self.store.setup_link_user(&tokens::hash(link)).await.map_err(|e| of_store("link", e))
    }
}

#[async_trait]
impl Accounts for LocalAccounts {
    async fn sign_in(&self, user: &str, password: &str) -> Result<SessionToken> {
        if let Err(wait) = self.attempts.admit(user, Instant::now()) {
            return Err(
                Problem::new(ProblemStatus::TooMany, "too_many_attempts").with("retry_s", wait.as_secs().max(1))
            );
        }
        let known = self.store.user_by_name(user).await.map_err(|e| of_store("user", e))?;
        let hash = known.as_ref().and_then(|user| user.password_hash.as_deref());
        // An unknown user costs the same time as a wrong password.
        let right = self.passwords.matches(password, hash).await?;
        match known {
            Some(known) if right => {
                self.attempts.forgive(user);
                let session = self.open_session(&known).await?;
                self.trace(oneself(&known), "account.sign_in", &known, json!({})).await;
                Ok(session)
            }
            _ => Err(Problem::new(ProblemStatus::Unauthenticated, "wrong_credentials")),
        }
    }

    async fn sign_out(&self, token: &SessionToken) -> Result<()> {
        let hash = tokens::hash(&token.0);
        let user = self.store.session_user(&hash).await.map_err(|e| of_store("session", e))?;
        self.store.drop_session(&hash).await.map_err(|e| of_store("session", e))?;
        if let Some(user) = user {
            self.trace(oneself(&user), "account.sign_out", &user, json!({})).await;
        }
        Ok(())
    }

    async fn caller(&self, token: &SessionToken) -> Result<Option<Caller>> {
        if !tokens::is_token(&token.0) {
            return Ok(None);
        }
        let user = self.store.session_user(&tokens::hash(&token.0)).await.map_err(|e| of_store("session", e))?;
        Ok(user.map(caller_of))
    }

    async fn link_is_open(&self, link: &str) -> Result<bool> {
        Ok(self.user_of_link(link).await?.is_some())
    }

    async fn set_password(&self, link: &str, password: &str) -> Result<SessionToken> {
        let used = || Problem::new(ProblemStatus::Forbidden, "link_used");
        let user = self.user_of_link(link).await?.ok_or_else(used)?;
        if password.chars().count() < LEAST_PASSWORD {
            return Err(Problem::invalid("password_short", "password").with("min", LEAST_PASSWORD));
        }
        if password.len() > MOST_PASSWORD {
            return Err(Problem::invalid("too_long", "password"));
        }
        let hash = self.passwords.hash(password).await?;
        let won = self.store.use_setup_link(&tokens::hash(link), &hash).await.map_err(|e| of_store("link", e))?;
        if !won {
            return Err(used());
        }
        self.trace(oneself(&user), "account.password", &user, json!({ "by": "link" })).await;
        self.open_session(&user).await
    }
}

/// A person who acts for themselves.
fn oneself(user: &UserRow) -> By<'_> {
    By { org_id: &user.org_id, user_id: Some(&user.id) }
}

fn caller_of(user: UserRow) -> Caller {
    Caller { user_id: user.id, org_id: user.org_id, name: user.name }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A task of ours that was ended from outside: only while the program ends.
fn task_failed(error: impl std::fmt::Display) -> Problem {
    internal("a task of the accounts", error)
}
