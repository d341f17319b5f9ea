//! The contract between pages and server, the model, and the screens. One folder a feature.
//!
//! Compiled for the server (feature `ssr`) and for the browser (feature `hydrate`). What never enters: SQL, Kubernetes,
//! processes, file paths, permission checks, business decisions.

#[cfg(feature = "ssr")]
pub mod backend;
pub mod error;
pub mod model;

use leptos::prelude::*;

#[component]
pub fn App() -> impl IntoView {
    view! { <p>"KIOPS"</p> }
}
