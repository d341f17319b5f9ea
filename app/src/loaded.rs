//! What a page is written from: loaded by the server, and taken over from the page's text by its program in the browser.
//!
//! All JSON in the browser is read from bytes, as the answers of server functions are: a reader is compiled once for each
//! type and each kind of source, and these readers are a good part of the program.

use codee::{Decoder, Encoder};
use leptos::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

pub struct Json;

impl<T: Serialize> Encoder<T> for Json {
    type Error = serde_json::Error;
    type Encoded = String;

    fn encode(value: &T) -> serde_json::Result<String> {
        serde_json::to_string(value)
    }
}

impl<T: DeserializeOwned> Decoder<T> for Json {
    type Error = serde_json::Error;
    type Encoded = str;

    fn decode(text: &str) -> serde_json::Result<T> {
        serde_json::from_slice(text.as_bytes())
    }
}

pub type Loaded<T> = ArcResource<T, Json>;

/// Whether the page's first byte waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Waits,
    GoesAhead,
}

/// For a part that hands it on a copy is worth having: `Resource::from`.
pub fn loaded<S, T, Fut>(
    page: Page,
    source: impl Fn() -> S + Send + Sync + 'static,
    load: impl Fn(S) -> Fut + Send + Sync + 'static,
) -> Loaded<T>
where
    S: PartialEq + Clone + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    Loaded::new_with_options(source, load, page == Page::Waits)
}
