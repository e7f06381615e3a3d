//! The kinds of attributes that the program knows, and their names on the command line.

use std::collections::BTreeSet;

use clap::{Args as _, Command, CommandFactory};
use serde_json::Value;
use tokenpool::matchable::{
    ClusterAssignment, ClusterResourceAttributes, ExecutionClusterLabel, ExecutionQueueAttributes,
    Kind, KindName, MatchableResource, PluginOverrides, QualityOfService, ResourceConstraints,
    TaskResourceAttributes, WorkflowExecutionConfig,
};

use crate::args::{Args, DeleteAttributes, GetAttributes, UpdateAttributes};

/// What flytectl's users append to the name of some kinds, or leave out.
const ENDINGS: [&str; 3] = ["s", SHOWN_ENDING, "-attributes"];
const SHOWN_ENDING: &str = "-attribute";

/// Kinds in the order of their names.
#[derive(Debug)]
pub(crate) struct Kinds {
    kinds: Vec<Kind<Value>>,
    /// Words that mean something else after `get`, `update` or `delete`.
    commands: BTreeSet<String>,
}

impl Kinds {
    /// Those that the library brings.
    pub(crate) fn built_in() -> tokenpool::Result<Self> {
        fn with<K: MatchableResource>(kinds: Kinds) -> tokenpool::Result<Kinds> {
            kinds.with(Kind::erased::<K>())
        }
        let kinds = Self { kinds: Vec::new(), commands: commands() };
        let kinds = with::<TaskResourceAttributes>(kinds)?;
        let kinds = with::<ClusterResourceAttributes>(kinds)?;
        let kinds = with::<ExecutionQueueAttributes>(kinds)?;
        let kinds = with::<ExecutionClusterLabel>(kinds)?;
        let kinds = with::<QualityOfService>(kinds)?;
        let kinds = with::<PluginOverrides>(kinds)?;
        let kinds = with::<WorkflowExecutionConfig>(kinds)?;
        let kinds = with::<ClusterAssignment>(kinds)?;
        with::<ResourceConstraints>(kinds)
    }

    /// These and another one.
    ///
    /// # Errors
    ///
    /// If the other's name means something already.
    pub(crate) fn with(mut self, kind: Kind<Value>) -> tokenpool::Result<Self> {
        let name = kind.name();
        let taken = |word: &String| self.commands.contains(word) || self.find(word).is_some();
        if let Some(word) = names(name).iter().find(|word| taken(word)) {
            return Err(tokenpool::Error::InvalidArgument {
                field: "kind",
                value: name.to_string(),
                rule: format!(
                    "must not be called {word} on the command line, which means something already"
                ),
            });
        }
        let place = self.kinds.partition_point(|other| other.name() < name);
        self.kinds.insert(place, kind);
        Ok(self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Kind<Value>> {
        self.kinds.iter()
    }

    /// The kind of this name, stored or on the command line.
    pub(crate) fn find(&self, word: &str) -> Option<&Kind<Value>> {
        self.iter().find(|kind| {
            kind.name().as_str() == word || names(kind.name()).iter().any(|name| name == word)
        })
    }

    /// The kind of this name; values of one that the program does not know are taken as they are.
    pub(crate) fn any(&self, word: &str) -> tokenpool::Result<Kind<Value>> {
        match self.find(word) {
            Some(kind) => Ok(kind.clone()),
            None => Ok(Kind::unchecked(KindName::new(word.to_owned())?)),
        }
    }

    /// The kind of this name, with values as they are stored, whether or not the program knows it.
    pub(crate) fn raw(&self, word: &str) -> tokenpool::Result<Kind<Value>> {
        self.any(word).map(|kind| Kind::unchecked(kind.name().clone()))
    }

    /// The kind of this name, whose rules the program knows.
    pub(crate) fn checked(&self, word: &str) -> tokenpool::Result<Kind<Value>> {
        self.find(word).cloned().ok_or_else(|| tokenpool::Error::InvalidArgument {
            field: "kind",
            value: word.to_owned(),
            rule: format!(
                "must be one that this program knows ({}), or be taken as it is with --unchecked",
                self.list()
            ),
        })
    }

    /// Their names, for a sentence.
    pub(crate) fn list(&self) -> String {
        self.iter().map(|kind| kind.name().as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The command line, with the commands of every kind.
    pub(crate) fn command(&self) -> Command {
        Args::command()
            .mut_subcommand("get", |get| get.subcommands(self.iter().map(get_command)))
            .mut_subcommand("update", |update| update.subcommands(self.iter().map(update_command)))
            .mut_subcommand("delete", |delete| delete.subcommands(self.iter().map(delete_command)))
    }
}

/// What a kind is called on the command line.
pub(crate) fn command_name(name: &KindName) -> String {
    name.as_str().to_lowercase().replace('_', "-")
}

/// All that a kind may be called there.
fn names(name: &KindName) -> Vec<String> {
    let name = command_name(name);
    let others = ENDINGS.iter().filter(|ending| **ending != "s" || !name.ends_with('s'));
    let others = others.map(|ending| format!("{name}{ending}"));
    std::iter::once(name.clone()).chain(others).collect()
}

/// The words that there are beside the names of kinds.
fn commands() -> BTreeSet<String> {
    let all = Args::command();
    let verbs = ["get", "update", "delete"].map(|verb| all.find_subcommand(verb));
    let commands = verbs.into_iter().flatten().flat_map(Command::get_subcommands);
    commands.map(|command| command.get_name().to_owned()).chain(["help".to_owned()]).collect()
}

fn command(kind: &Kind<Value>) -> Command {
    let mut names = names(kind.name()).into_iter();
    let command = Command::new(names.next().unwrap_or_default());
    // All are known, and help shows flytectl's own.
    let (shown, others): (Vec<_>, Vec<_>) = names.partition(|name| name.ends_with(SHOWN_ENDING));
    command.visible_aliases(shown).aliases(others)
}

fn get_command(kind: &Kind<Value>) -> Command {
    let name = command_name(kind.name());
    GetAttributes::augment_args(command(kind))
        .about(format!(
            "Show attributes of {}, where they come from, or all that are set",
            kind.name()
        ))
        .after_help(format!(
            "\
Examples:
  tokenpool get {name}
  tokenpool get {name} -p billing -d production app.reports.nightly --resolve
  tokenpool get {name} -p billing -d production --attrFile attributes.yaml"
        ))
}

fn update_command(kind: &Kind<Value>) -> Command {
    let name = command_name(kind.name());
    let how = if kind.updates_merge() { "; merged over what is set" } else { "" };
    UpdateAttributes::augment_args(command(kind))
        .about(format!("Set attributes of {} from a file{how}", kind.name()))
        .after_help(format!(
            "\
Examples:
  tokenpool update {name} --attrFile attributes.yaml --dryRun
  tokenpool update {name} -p billing -d production --restore 3"
        ))
}

fn delete_command(kind: &Kind<Value>) -> Command {
    let name = command_name(kind.name());
    DeleteAttributes::augment_args(command(kind))
        .about(format!("Delete attributes of {} at exactly one place", kind.name()))
        .after_help(format!(
            "\
Examples:
  tokenpool delete {name} -p billing -d production
  tokenpool delete {name} --attrFile attributes.yaml --force"
        ))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use tokenpool::matchable::InvalidField;

    use super::*;

    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Called<const N: usize> {}

    impl<const N: usize> MatchableResource for Called<N> {
        const NAME: &'static str = ["POOL", "POOLS", "TASK_RESOURCES", "PRIORITY"][N];

        fn validate(&self) -> Result<(), InvalidField> {
            Ok(())
        }
    }

    fn with<const N: usize>() -> tokenpool::Result<Kinds> {
        Kinds::built_in()?.with(Kind::erased::<Called<N>>())
    }

    #[test]
    fn a_kind_must_not_take_the_name_of_a_command_or_another_kind() {
        for (kinds, word) in [
            (with::<0>(), "called pool on"),
            (with::<1>(), "called pools on"),
            (with::<2>(), "called task-resources on"),
        ] {
            let error = kinds.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(word), "{error:?}: {word}");
        }
        assert!(with::<3>().is_ok());
    }

    #[test]
    fn flytectls_names_and_the_stored_one_are_the_kind() -> tokenpool::Result<()> {
        let kinds = Kinds::built_in()?;
        for (word, name) in [
            ("TASK_RESOURCE", Some("TASK_RESOURCE")),
            ("task-resource", Some("TASK_RESOURCE")),
            ("task-resource-attribute", Some("TASK_RESOURCE")),
            ("task-resource-attributes", Some("TASK_RESOURCE")),
            ("cluster-resource-attribute", Some("CLUSTER_RESOURCE")),
            ("execution-queue-attribute", Some("EXECUTION_QUEUE")),
            ("execution-cluster-labels", Some("EXECUTION_CLUSTER_LABEL")),
            ("plugin-overrides", Some("PLUGIN_OVERRIDE")),
            ("workflow-execution-config", Some("WORKFLOW_EXECUTION_CONFIG")),
            ("resource-constraints", Some("RESOURCE_CONSTRAINTS")),
            ("resource-constraintss", None),
            ("task_resource", None),
            ("pool", None),
        ] {
            let found = kinds.find(word).map(|kind| kind.name().as_str());
            assert_eq!(found, name, "{word}");
        }
        Ok(())
    }

    #[test]
    fn the_command_line_is_consistent() -> tokenpool::Result<()> {
        Kinds::built_in()?.command().debug_assert();
        Ok(())
    }

    #[test]
    fn every_command_that_does_something_has_a_description_and_an_example() -> tokenpool::Result<()>
    {
        fn visit(command: &Command) {
            if command.get_subcommands().next().is_some() {
                return command.get_subcommands().for_each(visit);
            }
            let name = command.get_name();
            let about = command.get_long_about().or_else(|| command.get_about());
            assert!(about.is_some(), "{name} has no description");
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains(name), "{name}: {help}");
        }
        visit(&Kinds::built_in()?.command());
        Ok(())
    }
}
