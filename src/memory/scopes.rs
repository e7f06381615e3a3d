//! Units in use per scope.

use std::collections::{BTreeMap, HashMap};

use crate::amount::ResourceConstraintsSpec;
use crate::execution::Scope;
use crate::outcome::{Limit, Refusal};

/// Units in use by each project and by each of its domains, kept as counters so that looking costs the same whatever the
/// number of grants. What uses nothing is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scopes {
    projects: HashMap<String, ProjectUse>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ProjectUse {
    in_use: u64,
    domains: BTreeMap<String, u64>,
}

impl Scopes {
    /// Counts units in, in a domain of a project.
    pub(super) fn add(&mut self, project: &str, domain: &str, units: u64) {
        // Most claims come from known scopes, which need no new string.
        let project = match self.projects.get_mut(project) {
            Some(project) => project,
            None => self.projects.entry(project.to_owned()).or_default(),
        };
        project.add(domain, units);
    }

    /// Counts units in unless they would exceed a cap: as [`refusal`](Self::refusal) and [`add`](Self::add), but looks only
    /// once.
    pub(super) fn add_within(
        &mut self,
        (project, domain): (&str, &str),
        caps: ResourceConstraintsSpec,
        units: u64,
    ) -> Result<(), Refusal> {
        let mut new = None;
        let project_use = match self.projects.get_mut(project) {
            Some(project_use) => project_use,
            None => new.insert(ProjectUse::default()),
        };
        if let Some(refusal) = project_use.refusal((project, domain), caps, units) {
            return Err(refusal);
        }
        project_use.add(domain, units);
        if let Some(new) = new {
            self.projects.insert(project.to_owned(), new);
        }
        Ok(())
    }

    /// Counts units out that were counted in.
    pub(super) fn subtract(&mut self, project: &str, domain: &str, units: u64) {
        let Some(project_use) = self.projects.get_mut(project) else { return };
        project_use.in_use -= units;
        if let Some(in_domain) = project_use.domains.get_mut(domain) {
            *in_domain -= units;
            if *in_domain == 0 {
                project_use.domains.remove(domain);
            }
        }
        if project_use.in_use == 0 {
            self.projects.remove(project);
        }
    }

    pub(super) fn project(&self, project: &str) -> u64 {
        self.projects.get(project).map_or(0, |project| project.in_use)
    }

    pub(super) fn domain(&self, project: &str, domain: &str) -> u64 {
        self.projects.get(project).map_or(0, |project| project.domain(domain))
    }

    /// The cap that units more would exceed, the wider one first.
    pub(super) fn refusal(
        &self,
        scope: (&str, &str),
        caps: ResourceConstraintsSpec,
        units: u64,
    ) -> Option<Refusal> {
        match self.projects.get(scope.0) {
            Some(project) => project.refusal(scope, caps, units),
            None => ProjectUse::default().refusal(scope, caps, units),
        }
    }

    /// All counters.
    pub(super) fn counters(&self) -> BTreeMap<Scope, u64> {
        let mut scopes = BTreeMap::new();
        for (project, project_use) in &self.projects {
            scopes.insert(Scope::Project { project: project.clone() }, project_use.in_use);
            for (domain, in_use) in &project_use.domains {
                let scope = Scope::Domain { project: project.clone(), domain: domain.clone() };
                scopes.insert(scope, *in_use);
            }
        }
        scopes
    }
}

impl ProjectUse {
    fn add(&mut self, domain: &str, units: u64) {
        self.in_use += units;
        match self.domains.get_mut(domain) {
            Some(in_domain) => *in_domain += units,
            None => drop(self.domains.insert(domain.to_owned(), units)),
        }
    }

    fn domain(&self, domain: &str) -> u64 {
        self.domains.get(domain).copied().unwrap_or_default()
    }

    fn refusal(
        &self,
        (project, domain): (&str, &str),
        caps: ResourceConstraintsSpec,
        units: u64,
    ) -> Option<Refusal> {
        if let Some(cap) = caps.project_scope_resource_constraint
            && self.in_use + units > cap.value()
        {
            let scope = Scope::Project { project: project.to_owned() };
            return Some(Refusal::new(Limit::Cap(scope), self.in_use, cap.value()));
        }
        if let Some(cap) = caps.namespace_scope_resource_constraint {
            let in_use = self.domain(domain);
            if in_use + units > cap.value() {
                let (project, domain) = (project.to_owned(), domain.to_owned());
                let scope = Scope::Domain { project, domain };
                return Some(Refusal::new(Limit::Cap(scope), in_use, cap.value()));
            }
        }
        None
    }
}
