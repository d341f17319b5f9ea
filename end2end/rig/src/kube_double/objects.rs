//! The double's objects, with what an API server itself does to those it is given.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Pods,
    Secrets,
    Claims,
}

/// The answer to what cannot be done, as Kubernetes gives it.
#[derive(Debug)]
pub struct Failure {
    code: StatusCode,
    reason: &'static str,
    message: String,
}

#[derive(Default)]
pub struct Objects {
    kept: BTreeMap<(Resource, String), Value>,
    /// Counted up with every change: what versions and ids are made of.
    version: u64,
}

impl Resource {
    pub fn of(plural: &str) -> Option<Self> {
        [Self::Pods, Self::Secrets, Self::Claims].into_iter().find(|resource| resource.plural() == plural)
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Secrets => "secrets",
            Self::Claims => "persistentvolumeclaims",
        }
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::Pods => "Pod",
            Self::Secrets => "Secret",
            Self::Claims => "PersistentVolumeClaim",
        }
    }
}

impl Failure {
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn not_found(resource: Resource, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} {name:?} not found", resource.plural()))
    }

    pub fn response(&self) -> Response<Body> {
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        answer(self.code, &status)
    }
}

pub fn answer(code: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

impl Objects {
    pub fn create(&mut self, resource: Resource, mut object: Value) -> Result<Value, Failure> {
        let name =
            object["metadata"]["name"].as_str().ok_or_else(|| Failure::invalid("a name is required"))?.to_owned();
        let key = (resource, name);
        if self.kept.contains_key(&key) {
            let message = format!("{} {:?} already exists", resource.plural(), key.1);
            return Err(Failure::new(StatusCode::CONFLICT, "AlreadyExists", message));
        }
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("00000000-0000-4000-8000-{:012x}", self.version).into();
        metadata["resourceVersion"] = self.version.to_string().into();
        metadata["creationTimestamp"] = now().into();
        self.kept.insert(key, object.clone());
        Ok(object)
    }

    pub fn get(&self, resource: Resource, name: &str) -> Result<&Value, Failure> {
        self.kept.get(&(resource, name.to_owned())).ok_or_else(|| Failure::not_found(resource, name))
    }

    /// Those with every one of these labels.
    pub fn list(&self, resource: Resource, labels: &[(&str, &str)]) -> Vec<&Value> {
        let matches = |object: &Value| labels.iter().all(|(key, value)| object["metadata"]["labels"][key] == *value);
        self.kept.iter().filter(|((of, _), object)| *of == resource && matches(object)).map(|(_, o)| o).collect()
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// A merge patch (RFC 7396). The last finalizer that goes lets a deleted object go.
    pub fn patch(&mut self, resource: Resource, name: &str, patch: &Value) -> Result<Value, Failure> {
        let object = self.change(resource, name)?;
        merge(object, patch);
        let object = object.clone();
        if object["metadata"]["deletionTimestamp"].is_string() && !has_finalizers(&object) {
            self.kept.remove(&(resource, name.to_owned()));
        }
        Ok(object)
    }

    /// One with finalizers is only marked.
    pub fn delete(&mut self, resource: Resource, name: &str, uid: Option<&str>) -> Result<Value, Failure> {
        let object = self.change(resource, name)?;
        if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
            return Err(Failure::new(StatusCode::CONFLICT, "Conflict", "the UID in the precondition is another one"));
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = now().into();
        }
        let object = object.clone();
        if !has_finalizers(&object) {
            self.kept.remove(&(resource, name.to_owned()));
        }
        Ok(object)
    }

    fn change(&mut self, resource: Resource, name: &str) -> Result<&mut Value, Failure> {
        let key = (resource, name.to_owned());
        let object = self.kept.get_mut(&key).ok_or_else(|| Failure::not_found(resource, name))?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        Ok(object)
    }
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().expect("made one above").remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

/// As Kubernetes writes times: UTC, whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_finalizers_stays_until_the_last_is_gone() {
        let mut objects = Objects::default();
        let pod = json!({ "metadata": { "name": "a", "labels": { "of": "me" }, "finalizers": ["x"] } });
        let made = objects.create(Resource::Pods, pod.clone()).unwrap();
        assert_eq!(objects.create(Resource::Pods, pod).unwrap_err().code, StatusCode::CONFLICT);
        assert_eq!(objects.list(Resource::Pods, &[("of", "me")]).len(), 1);
        assert_eq!(objects.list(Resource::Pods, &[("of", "you")]).len(), 0);
        assert_eq!(objects.list(Resource::Secrets, &[]).len(), 0);

        let other = objects.delete(Resource::Pods, "a", Some("another")).unwrap_err();
        assert_eq!(other.code, StatusCode::CONFLICT);
        objects.delete(Resource::Pods, "a", made["metadata"]["uid"].as_str()).unwrap();
        assert!(objects.get(Resource::Pods, "a").unwrap()["metadata"]["deletionTimestamp"].is_string());
        objects.patch(Resource::Pods, "a", &json!({ "metadata": { "finalizers": null } })).unwrap();
        assert_eq!(objects.get(Resource::Pods, "a").unwrap_err().code, StatusCode::NOT_FOUND);
    }
}
