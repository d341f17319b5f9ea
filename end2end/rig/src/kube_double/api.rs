//! The double's API: what is asked, as Kubernetes has it in paths, parameters and headers.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::objects::{Failure, Resource, answer as json_answer};
use super::{Double, forward, pod};

/// Kubernetes takes no longer ones either.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Of a client that wants no more of each object than its metadata.
const METADATA_ONLY: &str = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

pub async fn answer(double: Arc<Double>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(try_answer(&double, request).await.unwrap_or_else(|failure| failure.response()))
}

async fn try_answer(double: &Arc<Double>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let unknown = || Failure::new(StatusCode::NOT_FOUND, "NotFound", "the double does not serve this resource");
    let ["api", "v1", "namespaces", _, plural, rest @ ..] = &parts[..] else { return Err(unknown()) };
    let resource = Resource::of(plural).ok_or_else(unknown)?;
    let method = request.method().clone();
    match rest {
        [] if method == Method::GET => list(double, resource, &request),
        [] if method == Method::POST => create(double, resource, body(request).await?),
        [name] if method == Method::GET => Ok(json_answer(StatusCode::OK, double.state().objects.get(resource, name)?)),
        [name] if method == Method::PATCH => patch(double, resource, name, request).await,
        [name] if method == Method::DELETE => delete(double, resource, name, body(request).await?),
        // The protocol over WebSocket begins with a GET.
        [name, "portforward"] if method == Method::GET && resource == Resource::Pods => {
            forward::forward(double, name, request)
        }
        _ => {
            Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "the double does not know this verb"))
        }
    }
}

fn list(double: &Double, resource: Resource, request: &Request<Incoming>) -> Result<Response<Body>, Failure> {
    let selector = parameter(request, "labelSelector").unwrap_or_default();
    let labels = selector
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| label.split_once('=').filter(|(key, _)| !key.ends_with('!')))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Failure::invalid("the double selects by equal labels only"))?;
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let metadata_only = accept.contains(METADATA_ONLY);
    let state = double.state();
    let items = state.objects.list(resource, &labels);
    let items: Vec<Value> = match metadata_only {
        true => items.into_iter().map(metadata_of).collect(),
        false => items.into_iter().cloned().collect(),
    };
    let (version, kind) = match metadata_only {
        true => ("meta.k8s.io/v1", "PartialObjectMetadataList".to_owned()),
        false => ("v1", format!("{}List", resource.kind())),
    };
    let metadata = json!({ "resourceVersion": state.objects.version().to_string() });
    let list = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "items": items });
    Ok(json_answer(StatusCode::OK, &list))
}

fn metadata_of(object: &Value) -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
}

fn create(double: &Arc<Double>, resource: Resource, mut object: Value) -> Result<Response<Body>, Failure> {
    object["apiVersion"] = "v1".into();
    object["kind"] = resource.kind().into();
    let created = match resource {
        Resource::Pods => pod::create(double, object)?,
        Resource::Secrets | Resource::Claims => double.state().objects.create(resource, object)?,
    };
    Ok(json_answer(StatusCode::CREATED, &created))
}

async fn patch(
    double: &Arc<Double>,
    resource: Resource,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    if request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != MERGE_PATCH) {
        let message = "the double takes merge patches only";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
    }
    let patch = body(request).await?;
    let patched = double.state().objects.patch(resource, name, &patch)?;
    Ok(json_answer(StatusCode::OK, &patched))
}

fn delete(double: &Double, resource: Resource, name: &str, options: Value) -> Result<Response<Body>, Failure> {
    let uid = options["preconditions"]["uid"].as_str();
    let deleted = double.state().objects.delete(resource, name, uid)?;
    if resource == Resource::Pods {
        let ended = double.state().attempts.remove(name);
        // Outside of the lock: the relay is waited for.
        drop(ended);
    }
    Ok(json_answer(StatusCode::OK, &deleted))
}

async fn body(request: Request<Incoming>) -> Result<Value, Failure> {
    let bytes = to_bytes(Body::new(request.into_body()), MAX_BODY_BYTES);
    let bytes = bytes.await.map_err(|error| Failure::invalid(error.to_string()))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::invalid(error.to_string()))
}

/// Of the query; what is asked here holds nothing that is written in another way there but `=`, `/` and `,`.
pub fn parameter(request: &Request<Incoming>, name: &str) -> Option<String> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    Some(value.replace("%3D", "=").replace("%2F", "/").replace("%2C", ","))
}
