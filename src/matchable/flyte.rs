//! Attributes in the shapes of FlyteAdmin's requests and answers.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::attributes::{Attributes, AttributesOf, Found};
use super::kind::{Kind, MatchableResource};
use super::kinds::{
    ClusterAssignment, ClusterResourceAttributes, ExecutionClusterLabel, ExecutionQueueAttributes,
    MatchingAttributes, PluginOverrides, QualityOfService, TaskResourceAttributes,
    WorkflowExecutionConfig,
};
use super::path::AttributePath;
use super::store::{Expected, Filter};
use crate::error::{Error, Result};

/// Records to a page of a listing.
const PAGE: usize = 1000;

/// FlyteAdmin's service of matchable attributes.
///
/// It checks requests as FlyteAdmin does (flyteadmin f80e2911, `pkg/manager/impl/validation`), in the same order and with the
/// same words. Where FlyteAdmin has defects, this does what its documentation promises: an update has its type's rules checked,
/// quality of service can be set, plugin overrides can be set for a project, a deletion deletes nothing below its path, and what
/// is wrong with a question is an invalid argument.
///
/// # Example
///
/// ```
/// # use std::sync::Arc;
/// use tokenpool::Holder;
/// use tokenpool::matchable::{
///     Attributes, ExecutionQueueAttributes, FlyteAttributes, MemoryAttributeStore,
///     ProjectDomainAttributes,
/// };
///
/// # tokio_test::block_on(async {
/// let store = Arc::new(MemoryAttributeStore::new());
/// let service = FlyteAttributes::new(&Attributes::new(store, Holder::of_this_process()));
/// let tags = ExecutionQueueAttributes { tags: vec!["critical".to_owned()] };
/// service
///     .update_project_domain_attributes(Some(ProjectDomainAttributes {
///         project: "billing".to_owned(),
///         domain: "production".to_owned(),
///         matching_attributes: Some(tags.clone().into()),
///     }))
///     .await?;
/// let found = service.get_workflow_attributes("billing", "production", "app.nightly", 2).await?;
/// assert_eq!(found.matching_attributes, Some(tags.into()));
/// assert_eq!(found.workflow, ""); // it is inherited
/// # Ok::<(), tokenpool::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct FlyteAttributes {
    /// By their numbers.
    kinds: Arc<[AttributesOf<Value>]>,
    projects: Arc<dyn Projects>,
    domains: Option<Vec<String>>,
    defaults: Option<WorkflowExecutionConfig>,
}

/// Which projects there are.
#[async_trait]
pub trait Projects: Debug + Send + Sync + 'static {
    /// What is known of a project, or why that is not known.
    async fn state(&self, project: &str) -> std::result::Result<ProjectState, String>;
}

/// Whether a project may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProjectState {
    /// It may.
    Active,
    /// It may not, but what is set for it can be read.
    Archived,
}

/// Every project is active.
#[derive(Debug)]
struct AnyProject;

#[async_trait]
impl Projects for AnyProject {
    async fn state(&self, _project: &str) -> std::result::Result<ProjectState, String> {
        Ok(ProjectState::Active)
    }
}

/// Attributes of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "Flyte's message")]
pub struct ProjectAttributes {
    /// The project; empty where an answer comes from the domain of every project.
    pub project: String,
    /// Its attributes.
    pub matching_attributes: Option<MatchingAttributes>,
}

/// Attributes of a domain of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "Flyte's message")]
pub struct ProjectDomainAttributes {
    /// The project.
    pub project: String,
    /// The domain; empty where an answer comes from the project.
    pub domain: String,
    /// Its attributes.
    pub matching_attributes: Option<MatchingAttributes>,
}

/// Attributes of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "Flyte's message")]
pub struct WorkflowAttributes {
    /// The project.
    pub project: String,
    /// The domain; empty where an answer comes from the project.
    pub domain: String,
    /// The workflow; empty where an answer comes from above it.
    pub workflow: String,
    /// Its attributes.
    pub matching_attributes: Option<MatchingAttributes>,
}

/// What is looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "Flyte's message")]
pub struct ResourceRequest {
    /// The project; empty for none.
    pub project: String,
    /// The domain; empty for none.
    pub domain: String,
    /// The workflow; empty for none.
    pub workflow: String,
    /// The launch plan; empty for none.
    pub launch_plan: String,
    /// Number of the kind.
    pub resource_type: u32,
}

/// What a look-up found, and where: the names of that place, not those asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "Flyte's message")]
pub struct ResourceResponse {
    /// The project; empty for every one.
    pub project: String,
    /// The domain, or empty.
    pub domain: String,
    /// The workflow, or empty.
    pub workflow: String,
    /// The launch plan, or empty.
    pub launch_plan: String,
    /// Name of the kind.
    pub resource_type: &'static str,
    /// The attributes.
    pub attributes: MatchingAttributes,
}

impl FlyteAttributes {
    /// The service over these attributes, where every project is active and every domain known.
    pub fn new(attributes: &Attributes) -> Self {
        let kinds: [AttributesOf<Value>; 8] = [
            attributes.of_kind(Kind::erased::<TaskResourceAttributes>()),
            attributes.of_kind(Kind::erased::<ClusterResourceAttributes>()),
            attributes.of_kind(Kind::erased::<ExecutionQueueAttributes>()),
            attributes.of_kind(Kind::erased::<ExecutionClusterLabel>()),
            attributes.of_kind(Kind::erased::<QualityOfService>()),
            attributes.of_kind(Kind::erased::<PluginOverrides>()),
            attributes.of_kind(Kind::erased::<WorkflowExecutionConfig>()),
            attributes.of_kind(Kind::erased::<ClusterAssignment>()),
        ];
        Self { kinds: kinds.into(), projects: Arc::new(AnyProject), domains: None, defaults: None }
    }

    /// The same, where projects are looked up.
    #[must_use]
    pub fn with_projects(self, projects: Arc<dyn Projects>) -> Self {
        Self { projects, ..self }
    }

    /// The same with these domains and no others.
    #[must_use]
    pub fn with_domains(self, domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { domains: Some(domains.into_iter().map(Into::into).collect()), ..self }
    }

    /// The same, where a project's workflow execution configuration is merged over the server's own.
    #[must_use]
    pub fn with_execution_defaults(self, defaults: WorkflowExecutionConfig) -> Self {
        Self { defaults: Some(defaults), ..self }
    }

    /// Sets the attributes of a project.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] in FlyteAdmin's words; [`Error::InvalidAttributes`] if the attributes break a rule of their
    /// kind; else as [`AttributesOf::update`].
    ///
    /// # Cancel safety
    ///
    /// As [`AttributesOf::update`].
    pub async fn update_project_attributes(
        &self,
        request: Option<ProjectAttributes>,
    ) -> Result<()> {
        let request = request.ok_or_else(missing_attributes)?;
        self.check_active(&request.project).await?;
        let path = AttributePath::project(&request.project)?;
        self.update(&path, request.matching_attributes, &request.project).await
    }

    /// Sets the attributes of a domain of a project.
    ///
    /// # Errors
    ///
    /// As [`update_project_attributes`](Self::update_project_attributes).
    ///
    /// # Cancel safety
    ///
    /// As [`AttributesOf::update`].
    pub async fn update_project_domain_attributes(
        &self,
        request: Option<ProjectDomainAttributes>,
    ) -> Result<()> {
        let ProjectDomainAttributes { project, domain, matching_attributes } =
            request.ok_or_else(missing_attributes)?;
        self.check_project_and_domain(&project, &domain).await?;
        let path = AttributePath::project_domain(&project, &domain)?;
        self.update(&path, matching_attributes, &format!("{project}-{domain}")).await
    }

    /// Sets the attributes of a workflow.
    ///
    /// # Errors
    ///
    /// As [`update_project_attributes`](Self::update_project_attributes).
    ///
    /// # Cancel safety
    ///
    /// As [`AttributesOf::update`].
    pub async fn update_workflow_attributes(
        &self,
        request: Option<WorkflowAttributes>,
    ) -> Result<()> {
        let WorkflowAttributes { project, domain, workflow, matching_attributes } =
            request.ok_or_else(missing_attributes)?;
        let path = self.workflow(&project, &domain, &workflow).await?;
        self.update(&path, matching_attributes, &format!("{project}-{domain}-{workflow}")).await
    }

    /// The attributes of exactly a project; its workflow execution configuration merged over the server's own.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] in FlyteAdmin's words; [`Error::NotFound`] if nothing is set; else as
    /// [`AttributesOf::get_exact`].
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn get_project_attributes(
        &self,
        project: &str,
        resource_type: u32,
    ) -> Result<ProjectAttributes> {
        if let Err(error) = self.projects.state(project).await {
            let rule =
                format!("failed to validate that project [{project}] exists, err: [{error}]");
            return Err(Error::invalid("project", project, rule));
        }
        let kind = self.kind(resource_type)?;
        let path = AttributePath::project(project)?;
        let stored = match kind.get_exact(&path).await {
            Ok(found) => Some(self.attributes(resource_type, found)?),
            Err(Error::NotFound { .. }) if self.defaults_for(resource_type).is_some() => None,
            Err(error) => return Err(error),
        };
        let merged = match (stored, self.defaults_for(resource_type)) {
            (Some(MatchingAttributes::WorkflowExecutionConfig(own)), Some(defaults)) => {
                Some(own.merge(defaults.clone()).into())
            }
            (None, defaults) => defaults.cloned().map(Into::into),
            (stored, _) => stored,
        };
        Ok(ProjectAttributes { project: project.to_owned(), matching_attributes: merged })
    }

    /// The attributes of a domain of a project, or what it inherits: then the names of the answer are those of the place.
    ///
    /// # Errors
    ///
    /// As [`get_project_attributes`](Self::get_project_attributes).
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn get_project_domain_attributes(
        &self,
        project: &str,
        domain: &str,
        resource_type: u32,
    ) -> Result<ProjectDomainAttributes> {
        self.check_project_and_domain(project, domain).await?;
        let path = AttributePath::project_domain(project, domain)?;
        let found = self.look_up(&path, resource_type).await?;
        let ResourceResponse { project, domain, attributes, .. } = found;
        Ok(ProjectDomainAttributes { project, domain, matching_attributes: Some(attributes) })
    }

    /// The attributes of a workflow, or what it inherits: then the names of the answer are those of the place.
    ///
    /// # Errors
    ///
    /// As [`get_project_attributes`](Self::get_project_attributes).
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn get_workflow_attributes(
        &self,
        project: &str,
        domain: &str,
        workflow: &str,
        resource_type: u32,
    ) -> Result<WorkflowAttributes> {
        let path = self.workflow(project, domain, workflow).await?;
        let found = self.look_up(&path, resource_type).await?;
        let ResourceResponse { project, domain, workflow, attributes, .. } = found;
        let matching_attributes = Some(attributes);
        Ok(WorkflowAttributes { project, domain, workflow, matching_attributes })
    }

    /// Deletes the attributes of exactly a project. That there were none is no error.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] in FlyteAdmin's words; else as [`AttributesOf::delete`].
    ///
    /// # Cancel safety
    ///
    /// As [`AttributesOf::delete`].
    pub async fn delete_project_attributes(&self, project: &str, resource_type: u32) -> Result<()> {
        self.check_active(project).await?;
        self.delete(&AttributePath::project(project)?, resource_type).await
    }

    /// Deletes the attributes of exactly a domain of a project.
    ///
    /// # Errors
    ///
    /// As [`delete_project_attributes`](Self::delete_project_attributes).
    ///
    /// # Cancel safety
    ///
    /// As [`AttributesOf::delete`].
    pub async fn delete_project_domain_attributes(
        &self,
        project: &str,
        domain: &str,
        resource_type: u32,
    ) -> Result<()> {
        self.check_project_and_domain(project, domain).await?;
        self.delete(&AttributePath::project_domain(project, domain)?, resource_type).await
    }

    /// Deletes the attributes of exactly a workflow.
    ///
    /// # Errors
    ///
    /// As [`delete_project_attributes`](Self::delete_project_attributes).
    ///
    /// # Cancel safety
    ///
    /// As [`AttributesOf::delete`].
    pub async fn delete_workflow_attributes(
        &self,
        project: &str,
        domain: &str,
        workflow: &str,
        resource_type: u32,
    ) -> Result<()> {
        let path = self.workflow(project, domain, workflow).await?;
        self.delete(&path, resource_type).await
    }

    /// All that is set of a kind, the most specific first, of equals by path.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless the type is a known one; else as [`AttributesOf::list`]. What cannot be read is left
    /// out, and logged.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn list_matchable_attributes(
        &self,
        resource_type: u32,
    ) -> Result<Vec<ResourceResponse>> {
        let kind = self.kind(resource_type)?;
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let page = kind.list(&Filter::ALL, next.as_ref(), PAGE).await?;
            for unreadable in page.unreadable {
                let (path, problem) = (unreadable.path, unreadable.problem);
                tracing::warn!(kind = %kind.kind().name(), path, problem, "left out of a listing");
            }
            for found in page.found {
                all.push((found.path.level(), self.response(resource_type, found)?));
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        all.sort_by(|(one, _), (other, _)| other.cmp(one));
        Ok(all.into_iter().map(|(_, response)| response).collect())
    }

    /// Looks up as FlyteAdmin does when it creates executions: the most specific place that has any.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if a name is left out before one that is given, or the type is unknown; [`Error::NotFound`]
    /// if nothing is set; else as [`AttributesOf::get_resource`].
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn get_resource(&self, request: &ResourceRequest) -> Result<ResourceResponse> {
        let ResourceRequest { project, domain, workflow, launch_plan, resource_type } = request;
        let path = AttributePath::new(project, domain, workflow, launch_plan)?;
        self.look_up(&path, *resource_type).await
    }

    async fn look_up(&self, path: &AttributePath, resource_type: u32) -> Result<ResourceResponse> {
        let found = self.kind(resource_type)?.get_resource(path).await?;
        self.response(resource_type, (*found).clone())
    }

    async fn update(
        &self,
        path: &AttributePath,
        attributes: Option<MatchingAttributes>,
        identifier: &str,
    ) -> Result<()> {
        let attributes = attributes.ok_or_else(|| {
            Error::invalid("matching attributes", identifier, "missing matching_attributes")
        })?;
        let name = attributes.kind_name();
        let rule = format!("Unrecognized matching attributes type for request {identifier}");
        let (Some(number), Ok(value)) = (attributes.kind_number(), attributes.to_value()) else {
            return Err(Error::invalid("matching attributes", name, rule));
        };
        self.kind(number)?.update(path, value, Expected::Any).await.map(drop)
    }

    async fn delete(&self, path: &AttributePath, resource_type: u32) -> Result<()> {
        self.kind(resource_type)?.delete(path, Expected::Any).await.map(drop)
    }

    fn kind(&self, resource_type: u32) -> Result<&AttributesOf<Value>> {
        let kind = usize::try_from(resource_type).ok().and_then(|number| self.kinds.get(number));
        kind.ok_or_else(|| {
            Error::invalid("resource type", resource_type, "invalid value for resource_type")
        })
    }

    fn defaults_for(&self, resource_type: u32) -> Option<&WorkflowExecutionConfig> {
        self.defaults.as_ref().filter(|_| WorkflowExecutionConfig::NUMBER == Some(resource_type))
    }

    fn response(&self, resource_type: u32, found: Found<Value>) -> Result<ResourceResponse> {
        let path = found.path.clone();
        let attributes = self.attributes(resource_type, found)?;
        Ok(ResourceResponse {
            project: path.project_name().unwrap_or_default().to_owned(),
            domain: path.domain_name().unwrap_or_default().to_owned(),
            workflow: path.workflow_name().unwrap_or_default().into_owned(),
            launch_plan: path.launch_plan_name().unwrap_or_default().into_owned(),
            resource_type: attributes.kind_name(),
            attributes,
        })
    }

    fn attributes(&self, resource_type: u32, found: Found<Value>) -> Result<MatchingAttributes> {
        let kind = self.kind(resource_type)?.kind().name();
        let read = MatchingAttributes::from_value(resource_type, &found.value);
        let unreadable = |problem: String| Error::Unreadable {
            kind: kind.clone(),
            path: found.path.to_string(),
            problem,
        };
        match read {
            Some(read) => read.map_err(|error| unreadable(error.to_string())),
            None => Err(unreadable("it has no type in Flyte".to_owned())),
        }
    }

    async fn workflow(&self, project: &str, domain: &str, workflow: &str) -> Result<AttributePath> {
        self.check_project_and_domain(project, domain).await?;
        if workflow.is_empty() {
            return Err(Error::invalid("workflow", workflow, "missing name"));
        }
        AttributePath::workflow(project, domain, workflow)
    }

    async fn check_active(&self, project: &str) -> Result<()> {
        let registered = |error| {
            format!("failed to validate that project [{project}] is registered, err: [{error}]")
        };
        self.check_project(project, registered).await
    }

    async fn check_project_and_domain(&self, project: &str, domain: &str) -> Result<()> {
        let registered = |error| {
            format!(
                "failed to validate that project [{project}] and domain [{domain}] are registered, err: [{error}]"
            )
        };
        self.check_project(project, registered).await?;
        match &self.domains {
            Some(domains) if !domains.iter().any(|known| known == domain) => {
                let rule = format!("domain [{domain}] is unrecognized by system");
                Err(Error::invalid("domain", domain, rule))
            }
            _ => Ok(()),
        }
    }

    async fn check_project(
        &self,
        project: &str,
        unknown: impl FnOnce(String) -> String,
    ) -> Result<()> {
        match self.projects.state(project).await {
            Ok(ProjectState::Active) => Ok(()),
            Ok(ProjectState::Archived) => Err(Error::invalid(
                "project",
                project,
                format!("project [{project}] is not active"),
            )),
            Err(error) => Err(Error::invalid("project", project, unknown(error))),
        }
    }
}

fn missing_attributes() -> Error {
    Error::invalid("attributes", "", "missing attributes")
}
