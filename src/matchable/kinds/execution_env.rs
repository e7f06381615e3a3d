//! Environments that nodes of an execution are assigned to.
//!
//! FlyteAdmin's older versions do not have them; the fields are those of flyteidl 1.16.8.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::super::kind::InvalidField;
use super::rules::{each, not_blank};

/// Deepest nesting of an environment's description: what a decoder of Protocol Buffers, which stops after 100 messages in
/// each other, still reads.
const MAX_DEPTH: usize = 16;

/// Largest integer below which a 64-bit float, the only number of `google.protobuf.Struct`, holds every one.
const MAX_INTEGER: u64 = 1 << 53;

/// The environment of some nodes of an execution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutionEnvAssignment {
    /// The nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_ids: Vec<String>,
    /// The type of their tasks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_type: String,
    /// Their environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_env: Option<ExecutionEnv>,
}

/// An environment that tasks share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Shape", into = "Shape")]
pub struct ExecutionEnv {
    /// Its name.
    pub name: String,
    /// Its type, `type` in JSON.
    pub env_type: String,
    /// Its description, `extant` or `spec` in JSON.
    pub environment: Option<Environment>,
    /// Its version.
    pub version: String,
}

/// What describes an environment, in words of its type's own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Environment {
    /// One that exists.
    Extant(Map<String, Value>),
    /// One that is to be created.
    Spec(Map<String, Value>),
}

/// The shape in JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Shape {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    env_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    extant: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
}

impl TryFrom<Shape> for ExecutionEnv {
    type Error = &'static str;

    fn try_from(shape: Shape) -> Result<Self, &'static str> {
        let Shape { name, env_type, extant, spec, version } = shape;
        let environment = match (extant.map(plain_fields), spec.map(plain_fields)) {
            (Some(_), Some(_)) => {
                return Err("must not have both an extant environment and a spec");
            }
            (Some(extant), None) => Some(Environment::Extant(extant)),
            (None, spec) => spec.map(Environment::Spec),
        };
        Ok(Self { name, env_type, environment, version })
    }
}

impl From<ExecutionEnv> for Shape {
    fn from(env: ExecutionEnv) -> Self {
        let ExecutionEnv { name, env_type, environment, version } = env;
        let (extant, spec) = match environment {
            None => (None, None),
            Some(Environment::Extant(extant)) => (Some(extant), None),
            Some(Environment::Spec(spec)) => (None, Some(spec)),
        };
        Self { name, env_type, extant, spec, version }
    }
}

/// Whole numbers without a point: some libraries write `7.0` for Flyte's numbers, some `7`.
fn plain_fields(fields: Map<String, Value>) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key, plain(value))).collect()
}

fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            Value::Number(number.as_f64().and_then(plain_number).unwrap_or(number))
        }
        Value::Array(values) => values.into_iter().map(plain).collect(),
        Value::Object(fields) => Value::Object(plain_fields(fields)),
        value => value,
    }
}

/// The number in JSON, without a point if it is whole; none if it is infinite or no number.
pub(in super::super) fn plain_number(number: f64) -> Option<Number> {
    #[expect(clippy::cast_possible_truncation, reason = "the comparison tells")]
    let integer = number as i64;
    #[expect(clippy::cast_precision_loss, reason = "the comparison tells")]
    let exact = integer as f64 == number && integer.unsigned_abs() <= MAX_INTEGER;
    if exact { Some(integer.into()) } else { Number::from_f64(number) }
}

impl ExecutionEnvAssignment {
    pub(super) fn validate(&self) -> Result<(), InvalidField> {
        let Self { node_ids, task_type: _, execution_env } = self;
        each("node_ids", node_ids, |id| not_blank("", id))?;
        let Some(env) = execution_env else {
            return Err(InvalidField::new("execution_env", "", "must be set"));
        };
        env.validate().map_err(|error| error.within("execution_env"))
    }
}

impl ExecutionEnv {
    fn validate(&self) -> Result<(), InvalidField> {
        not_blank("name", &self.name)?;
        let (field, description) = match &self.environment {
            None => return Ok(()),
            Some(Environment::Extant(extant)) => ("extant", extant),
            Some(Environment::Spec(spec)) => ("spec", spec),
        };
        description.iter().try_for_each(|(key, value)| {
            check(value, MAX_DEPTH).map_err(|error| error.within(format_args!("{field}[{key:?}]")))
        })
    }
}

/// Whether `google.protobuf.Struct` can hold it, and every decoder read it.
fn check(value: &Value, depth: usize) -> Result<(), InvalidField> {
    let inside = |value| match depth.checked_sub(1) {
        Some(depth) => check(value, depth),
        None => {
            let rule = format!("must not be nested deeper than {MAX_DEPTH} levels");
            Err(InvalidField::new("", "", rule))
        }
    };
    match value {
        Value::Number(number) => {
            let exact = match number.as_i64() {
                Some(integer) => integer.unsigned_abs() <= MAX_INTEGER,
                None => number.is_f64(),
            };
            InvalidField::unless(
                exact,
                "",
                number,
                "must be a number that a 64-bit float holds exactly",
            )
        }
        Value::Array(values) => values.iter().try_for_each(inside),
        Value::Object(fields) => fields.values().try_for_each(inside),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}
