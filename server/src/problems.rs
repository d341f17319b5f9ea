//! From inner errors to what a person is told: a situation where there is one, else an id that also stands in the log,
//! once, beside the cause.

use crate::store::StoreError;
use kiops_app::error::{Problem, ProblemStatus};
use std::fmt;

/// An error that says nothing to a person: logged here under a new id, which goes to the person.
pub fn internal(what: &str, cause: impl fmt::Display) -> Problem {
    let error_id = random_hex::<6>();
    tracing::error!(error_id, "{what}: {cause:#}");
    Problem::internal(&error_id)
}

/// What a failed call of the store means to whoever asked for `what`.
pub fn of_store(what: &str, error: StoreError) -> Problem {
    match error {
        StoreError::NotFound => Problem::not_found(),
        StoreError::Taken("image") => Problem::conflict("image_taken").at("registry_config.image_name"),
        StoreError::Taken("name") => Problem::conflict("name_taken").at("name"),
        StoreError::Taken(_) => Problem::conflict("taken"),
        StoreError::Conflict => Problem::conflict("changed_meanwhile"),
        StoreError::Full => Problem::new(ProblemStatus::Unavailable, "disk_full"),
        error @ (StoreError::NewerSchema { .. } | StoreError::Other(_)) => internal(what, error),
    }
}

/// `N` random bytes in hex.
pub fn random_hex<const N: usize>() -> String {
    hex::encode(random::<N>())
}

/// Random bytes from the system. Without them nothing here is safe, so their absence ends the program.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
