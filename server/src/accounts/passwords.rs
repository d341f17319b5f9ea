//! Hashing and comparing passwords. Each takes 19 MB and tens of milliseconds on purpose, so only a few are worked on at
//! a time, away from the threads that answer requests, and a crowd is sent away.

use super::task_failed;
use crate::problems::internal;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use kiops_app::error::{Problem, ProblemStatus, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

const AT_ONCE: usize = 2;
const MOST_WAITING: usize = 32;

pub struct Passwords {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Compared with where there is no hash, so that an unknown user takes as long as a known one.
    nobody: String,
}

impl Passwords {
    pub fn new() -> Self {
        // The parameters are argon2's recommended ones, with which real passwords are hashed below.
        let nobody =
            "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), waiting: AtomicUsize::new(0), nobody: nobody.to_owned() }
    }

    pub async fn hash(&self, password: &str) -> Result<String> {
        let password = password.to_owned();
        self.work(move || {
            let hash: PasswordHash =
                Argon2::default().hash_password(password.as_bytes()).map_err(|e| internal("hashing a password", e))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// False where there is no hash, and no sooner than a wrong password is found out.
    pub async fn matches(&self, password: &str, hash: Option<&str>) -> Result<bool> {
        let exists = hash.is_some();
        let (password, hash) = (password.to_owned(), hash.unwrap_or(&self.nobody).to_owned());
        self.work(move || {
            let hash = PasswordHash::new(&hash).map_err(|e| internal("reading a password's hash", e))?;
            let right = Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
            Ok(right && exists)
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let _waiting = Waiting::join(&self.waiting)?;
        let place = self.places.clone().acquire_owned().await.map_err(task_failed)?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        })
        .await
        .map_err(task_failed)?
    }
}

/// One of those who wait or are worked on, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Result<Self> {
        let joined = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            return Err(Problem::new(ProblemStatus::TooMany, "too_many_attempts").with("retry_s", 5));
        }
        Ok(joined)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn only_the_same_password_matches() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && !hash.contains("horse"));
        assert_ne!(hash, passwords.hash("correct horse").await.unwrap(), "the salt is random");
        assert!(passwords.matches("correct horse", Some(&hash)).await.unwrap());
        assert!(!passwords.matches("correct horsf", Some(&hash)).await.unwrap());
        assert!(!passwords.matches("correct horse", None).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse").await.unwrap();
        let mut fastest = [u128::MAX; 2];
        for _ in 0..5 {
            for (slot, hash) in [Some(hash.as_str()), None].into_iter().enumerate() {
                let begun = Instant::now();
                passwords.matches("wrong", hash).await.unwrap();
                fastest[slot] = fastest[slot].min(begun.elapsed().as_micros());
            }
        }
        let [wrong, unknown] = fastest;
        assert!(unknown * 3 > wrong * 2 && wrong * 3 > unknown * 2, "{wrong} µs, {unknown} µs");
    }

    #[tokio::test]
    async fn a_crowd_is_sent_away() {
        let passwords = Arc::new(Passwords::new());
        passwords.waiting.store(MOST_WAITING, Ordering::Relaxed);
        let refused = passwords.hash("correct horse").await.unwrap_err();
        assert_eq!(refused.code, "too_many_attempts");
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), MOST_WAITING, "who was sent away does not wait");
    }
}
