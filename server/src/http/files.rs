//! The page's program, styles and fonts, as the front end's build left them: compressed beforehand, and for ever where
//! their name holds their hash.

use super::Edge;
use axum::Router;
use axum::http::{HeaderValue, header};
use leptos::config::LeptosOptions;
use std::path::Path;
use tower::ServiceBuilder;
use tower_http::services::{ServeDir, ServeFile};
use tower_http::set_header::SetResponseHeaderLayer;

const NAME: &str = "kiops";
const PKG: &str = "pkg";
const FOREVER: &str = "public, max-age=31536000, immutable";
const AN_HOUR: &str = "public, max-age=3600";

#[derive(Clone, Debug)]
pub struct Site {
    pub options: LeptosOptions,
}

impl Site {
    /// `hash.txt` beside this program names the files that belong to it; without it they have plain names.
    pub fn new(root: &Path) -> Self {
        let hashes = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("hash.txt")));
        let options = LeptosOptions::builder()
            .output_name(NAME)
            .site_root(root.to_string_lossy().into_owned())
            .site_pkg_dir(PKG)
            .hash_files(hashes.is_some_and(|file| file.exists()))
            .build();
        if !root.join(PKG).is_dir() {
            tracing::warn!("{} holds no web page: LEPTOS_SITE_ROOT names the folder", root.display());
        }
        Self { options }
    }

    fn kept(&self) -> &'static str {
        if self.options.hash_files { FOREVER } else { "no-cache" }
    }
}

pub fn router(site: &Site) -> Router<Edge> {
    let root = Path::new(&*site.options.site_root);
    let folder = |name: &str| ServeDir::new(root.join(name)).precompressed_br().precompressed_gzip();
    let cached = |value: &'static str| {
        ServiceBuilder::new()
            .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static(value)))
    };
    Router::new()
        .nest_service("/pkg", cached(site.kept()).service(folder(PKG)))
        .nest_service("/fonts", cached(AN_HOUR).service(folder("fonts")))
        .route_service("/favicon.svg", cached(AN_HOUR).service(ServeFile::new(root.join("favicon.svg"))))
}
