//! As whom an execution runs, and which secrets it is given. Secrets are named here, never held.

use serde::{Deserialize, Serialize};

use super::super::kind::InvalidField;
use super::enumeration::enumeration;
use super::rules::{each, is_default, not_blank, sets_something};
use super::syntax::check_variable;

/// As whom an execution runs, and which secrets it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityContext {
    /// As whom it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<Identity>,
    /// Secrets that are mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// Tokens that are requested and mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<OAuth2TokenRequest>,
}

/// As whom an execution runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// A role of the cloud provider.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub iam_role: String,
    /// A service account of Kubernetes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub k8s_service_account: String,
    /// A client of an OAuth2 server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth2_client: Option<OAuth2Client>,
    /// Who started the execution, filled in by the engine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub execution_identity: String,
}

/// A client of an OAuth2 server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth2Client {
    /// Its public name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// Where its secret is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
}

/// Where a secret is and how a task is given it; not the secret itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secret {
    /// The group that it is in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Which version of the group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_version: String,
    /// Its name in the group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// How it is given.
    #[serde(skip_serializing_if = "is_default")]
    pub mount_requirement: MountType,
    /// The environment variable that it is put into, instead of one named after group and key. Newer than the rest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env_var: String,
}

enumeration! {
    /// How a task is given a secret.
    MountType {
        Any "ANY" "In either way.",
        EnvVar "ENV_VAR" "As an environment variable.",
        File "FILE" "As a file.",
    }
}

/// A token that is requested from an OAuth2 server and given to the tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth2TokenRequest {
    /// Its name, as tasks look for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How it is requested.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub token_type: OAuth2TokenRequestType,
    /// As which client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<OAuth2Client>,
    /// URL where the server says what it offers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub idp_discovery_endpoint: String,
    /// URL of the server's tokens, instead of the one that it says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token_endpoint: String,
}

enumeration! {
    /// How a token is requested.
    OAuth2TokenRequestType {
        ClientCredentials "CLIENT_CREDENTIALS" "With the client's own credentials.",
    }
}

impl SecurityContext {
    pub(super) fn validate(&self) -> Result<(), InvalidField> {
        let Self { run_as, secrets, tokens } = self;
        // It would hide those of the places above, and say nothing in their stead.
        sets_something(!is_default(self), "")?;
        if let Some(identity) = run_as {
            identity.validate().map_err(|error| error.within("run_as"))?;
        }
        each("secrets", secrets, Secret::validate)?;
        each("tokens", tokens, OAuth2TokenRequest::validate)
    }

    /// Whether FlyteAdmin takes it for an execution that has none of its own: one with only secrets or tokens it passes
    /// over.
    pub(super) fn is_inherited(&self) -> bool {
        self.run_as.as_ref().is_some_and(|identity| {
            let Identity { iam_role, k8s_service_account, oauth2_client: _, execution_identity } =
                identity;
            [iam_role, k8s_service_account, execution_identity].iter().any(|name| !name.is_empty())
        })
    }
}

impl Identity {
    fn validate(&self) -> Result<(), InvalidField> {
        sets_something(!is_default(self), "")?;
        match &self.oauth2_client {
            Some(client) => client.validate().map_err(|error| error.within("oauth2_client")),
            None => Ok(()),
        }
    }
}

impl OAuth2Client {
    fn validate(&self) -> Result<(), InvalidField> {
        not_blank("client_id", &self.client_id)?;
        match &self.client_secret {
            Some(secret) => secret.validate().map_err(|error| error.within("client_secret")),
            None => Ok(()),
        }
    }
}

impl Secret {
    fn validate(&self) -> Result<(), InvalidField> {
        let Self { group, group_version, key, mount_requirement: _, env_var } = self;
        if group.trim().is_empty() {
            let rule = "must not be empty without a group";
            InvalidField::unless(!key.trim().is_empty(), "key", key, rule)?;
            let rule = "needs a group";
            InvalidField::unless(group_version.is_empty(), "group_version", group_version, rule)?;
        }
        if env_var.is_empty() { Ok(()) } else { check_variable("env_var", env_var) }
    }
}

impl OAuth2TokenRequest {
    fn validate(&self) -> Result<(), InvalidField> {
        not_blank("name", &self.name)?;
        match &self.client {
            Some(client) => client.validate().map_err(|error| error.within("client")),
            None => Ok(()),
        }
    }
}
