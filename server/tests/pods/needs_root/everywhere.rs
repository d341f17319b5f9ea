//! What is told of every runner, told of Pods.

use crate::rig::{InPods, together};

crate::stories::tell_in!(InPods, together());
