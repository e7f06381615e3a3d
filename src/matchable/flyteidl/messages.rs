//! Those of flyteidl's messages that attributes are made of, by hand, because they are few. Names are the originals'.
//!
//! Entries of maps are messages of their own here: Go and Python write the key and the value of each even when they are
//! empty, which prost's maps leave out.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct MatchingAttributes {
    #[prost(oneof = "Target", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub(super) target: Option<Target>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Target {
    #[prost(message, tag = "1")]
    TaskResourceAttributes(Box<TaskResourceAttributes>),
    #[prost(message, tag = "2")]
    ClusterResourceAttributes(StringMap),
    #[prost(message, tag = "3")]
    ExecutionQueueAttributes(ExecutionQueueAttributes),
    #[prost(message, tag = "4")]
    ExecutionClusterLabel(ExecutionClusterLabel),
    #[prost(message, tag = "5")]
    QualityOfService(QualityOfService),
    #[prost(message, tag = "6")]
    PluginOverrides(PluginOverrides),
    #[prost(message, tag = "7")]
    WorkflowExecutionConfig(Box<WorkflowExecutionConfig>),
    #[prost(message, tag = "8")]
    ClusterAssignment(ClusterAssignment),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskResourceAttributes {
    #[prost(message, optional, tag = "1")]
    pub(super) defaults: Option<TaskResourceSpec>,
    #[prost(message, optional, tag = "2")]
    pub(super) limits: Option<TaskResourceSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskResourceSpec {
    #[prost(string, tag = "1")]
    pub(super) cpu: String,
    #[prost(string, tag = "2")]
    pub(super) gpu: String,
    #[prost(string, tag = "3")]
    pub(super) memory: String,
    #[prost(string, tag = "4")]
    pub(super) storage: String,
    #[prost(string, tag = "5")]
    pub(super) ephemeral_storage: String,
}

/// `ClusterResourceAttributes`, `Labels` and `Annotations`, which differ in names only.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StringMap {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<StringEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StringEntry {
    #[prost(string, optional, tag = "1")]
    pub(super) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecutionQueueAttributes {
    #[prost(string, repeated, tag = "1")]
    pub(super) tags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecutionClusterLabel {
    #[prost(string, tag = "1")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QualityOfService {
    #[prost(oneof = "Designation", tags = "1, 2")]
    pub(super) designation: Option<Designation>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Designation {
    #[prost(int32, tag = "1")]
    Tier(i32),
    #[prost(message, tag = "2")]
    Spec(QualityOfServiceSpec),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QualityOfServiceSpec {
    #[prost(message, optional, tag = "1")]
    pub(super) queueing_budget: Option<Duration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Duration {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginOverrides {
    #[prost(message, repeated, tag = "1")]
    pub(super) overrides: Vec<PluginOverride>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginOverride {
    #[prost(string, tag = "1")]
    pub(super) task_type: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) plugin_id: Vec<String>,
    #[prost(int32, tag = "4")]
    pub(super) missing_plugin_behavior: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WorkflowExecutionConfig {
    #[prost(int32, tag = "1")]
    pub(super) max_parallelism: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) security_context: Option<SecurityContext>,
    #[prost(message, optional, tag = "3")]
    pub(super) raw_output_data_config: Option<RawOutputDataConfig>,
    #[prost(message, optional, tag = "4")]
    pub(super) labels: Option<StringMap>,
    #[prost(message, optional, tag = "5")]
    pub(super) annotations: Option<StringMap>,
    #[prost(message, optional, tag = "6")]
    pub(super) interruptible: Option<BoolValue>,
    #[prost(bool, tag = "7")]
    pub(super) overwrite_cache: bool,
    #[prost(message, optional, tag = "8")]
    pub(super) envs: Option<Envs>,
    #[prost(message, repeated, tag = "9")]
    pub(super) execution_env_assignments: Vec<ExecutionEnvAssignment>,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(super) value: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RawOutputDataConfig {
    #[prost(string, tag = "1")]
    pub(super) output_location_prefix: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Envs {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<KeyValuePair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValuePair {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    pub(super) run_as: Option<Identity>,
    #[prost(message, repeated, tag = "2")]
    pub(super) secrets: Vec<Secret>,
    #[prost(message, repeated, tag = "3")]
    pub(super) tokens: Vec<OAuth2TokenRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Identity {
    #[prost(string, tag = "1")]
    pub(super) iam_role: String,
    #[prost(string, tag = "2")]
    pub(super) k8s_service_account: String,
    #[prost(message, optional, tag = "3")]
    pub(super) oauth2_client: Option<OAuth2Client>,
    #[prost(string, tag = "4")]
    pub(super) execution_identity: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OAuth2Client {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) client_secret: Option<Secret>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Secret {
    #[prost(string, tag = "1")]
    pub(super) group: String,
    #[prost(string, tag = "2")]
    pub(super) group_version: String,
    #[prost(string, tag = "3")]
    pub(super) key: String,
    #[prost(int32, tag = "4")]
    pub(super) mount_requirement: i32,
    #[prost(string, tag = "5")]
    pub(super) env_var: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OAuth2TokenRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "2")]
    pub(super) token_type: i32,
    #[prost(message, optional, tag = "3")]
    pub(super) client: Option<OAuth2Client>,
    #[prost(string, tag = "4")]
    pub(super) idp_discovery_endpoint: String,
    #[prost(string, tag = "5")]
    pub(super) token_endpoint: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecutionEnvAssignment {
    #[prost(string, repeated, tag = "1")]
    pub(super) node_ids: Vec<String>,
    #[prost(string, tag = "2")]
    pub(super) task_type: String,
    #[prost(message, optional, tag = "3")]
    pub(super) execution_env: Option<ExecutionEnv>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecutionEnv {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) env_type: String,
    #[prost(oneof = "Environment", tags = "3, 4")]
    pub(super) environment: Option<Environment>,
    #[prost(string, tag = "5")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Environment {
    #[prost(message, tag = "3")]
    Extant(Struct),
    #[prost(message, tag = "4")]
    Spec(Struct),
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Struct {
    #[prost(message, repeated, tag = "1")]
    pub(super) fields: Vec<FieldsEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldsEntry {
    #[prost(string, optional, tag = "1")]
    pub(super) key: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(oneof = "ValueKind", tags = "1, 2, 3, 4, 5, 6")]
    pub(super) kind: Option<ValueKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ValueKind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Struct(Struct),
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ClusterAssignment {
    // 1 and 2 were other fields once.
    #[prost(string, tag = "3")]
    pub(super) cluster_pool_name: String,
}
