//! Signing in and out, and setting the first password.

pub mod api;
mod pages;

pub use pages::{SetPasswordPage, SignInPage};
