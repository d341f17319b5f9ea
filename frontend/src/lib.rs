//! Hydrates the pages, and nothing else.

use leptos::prelude::set_timeout;
use std::time::Duration;
use wasm_bindgen_futures::spawn_local;

#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    take_over(Duration::from_secs(1));
}

/// A page is taken over as a whole or not at all: without its program it still works, as forms and links.
fn take_over(patience: Duration) {
    spawn_local(async move {
        if kiops_app::parts_are_there().await {
            leptos::mount::hydrate_body(kiops_app::App);
        } else {
            set_timeout(move || take_over((patience * 2).min(Duration::from_secs(60))), patience);
        }
    });
}
