//! Options of the commands about attributes.

use std::path::PathBuf;

use clap::error::Result;
use clap::{ArgMatches, Command, FromArgMatches, Subcommand};

/// A command of its own, or one that there is for every kind of attributes, under the kind's name.
///
/// Which kinds there are, only the running program knows: it adds their commands to those of `Other`.
pub(crate) enum OfKind<Other, Args> {
    Other(Other),
    Kind { kind: String, args: Args },
}

impl<Other: Subcommand, Args: clap::Args> FromArgMatches for OfKind<Other, Args> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self> {
        match matches.subcommand() {
            Some((name, of)) if !Other::has_subcommand(name) => {
                Ok(Self::Kind { kind: name.to_owned(), args: Args::from_arg_matches(of)? })
            }
            _ => Other::from_arg_matches(matches).map(Self::Other),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<()> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<Other: Subcommand, Args: clap::Args> Subcommand for OfKind<Other, Args> {
    fn augment_subcommands(command: Command) -> Command {
        Other::augment_subcommands(command)
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Other::augment_subcommands_for_update(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Other::has_subcommand(name)
    }
}

/// A place where attributes are set, or for which they are looked up.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Place {
    /// Workflow in the domain of the project
    #[arg(value_name = "WORKFLOW")]
    pub(crate) workflow: Option<String>,
    /// Project
    #[arg(short, long, value_name = "P")]
    pub(crate) project: Option<String>,
    /// Domain, of the project if one is given, else of every project
    #[arg(short, long, value_name = "D")]
    pub(crate) domain: Option<String>,
    /// Launch plan of the workflow
    #[arg(long, value_name = "L")]
    pub(crate) launch_plan: Option<String>,
}

/// Show attributes, where they come from, or all that are set
///
/// Of a place it shows what is in force there: what is set at the place itself, or else at the most specific place above it
/// that has any; last of all at the domain of every project. It says where that was found. The YAML it prints is what
/// `update` and `apply` take. Without a place it lists all that are set. Exit status 3 if nothing is set.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct GetAttributes {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only what is set at exactly this place
    #[arg(long, conflicts_with_all = ["resolve", "history", "list"])]
    pub(crate) exact: bool,
    /// Show every place that has any, which one wins, and all of it merged, with the source of each field
    #[arg(long, conflicts_with_all = ["history", "list", "attr_file"])]
    pub(crate) resolve: bool,
    /// List the versions that exactly this place has or had; `update --restore` brings one back
    #[arg(long, conflicts_with_all = ["list", "attr_file"])]
    pub(crate) history: bool,
    /// List all that are set, only those of --project and --domain if given
    #[arg(long, conflicts_with_all = ["workflow", "launch_plan", "attr_file"])]
    pub(crate) list: bool,
    /// Write them into this file, which `update` takes, instead of printing them; `-` is stdout
    #[arg(long = "attrFile", alias = "attr-file", value_name = "FILE")]
    pub(crate) attr_file: Option<PathBuf>,
    /// Overwrite the file without asking
    #[arg(long, requires = "attr_file")]
    pub(crate) force: bool,
}

/// Set attributes from a file, or bring back an older version
///
/// Shows what would change at exactly the places that the file names, and asks. What is set above them does not matter. Where
/// updates of the kind merge, as those of plugin overrides, the result of the merge is shown. If somebody else changes
/// the attributes before the question is answered, nothing is overwritten: exit status 3.
///
/// A file is YAML: project, domain, workflow, launch_plan (as many as the place has), kind if it likes, and the fields of the
/// attributes beside them. It may have several documents; if one of them is wrong, none is applied.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct UpdateAttributes {
    #[command(flatten)]
    pub(crate) place: Place,
    /// File with the attributes and the places where to set them; - is stdin
    #[arg(
        long = "attrFile",
        alias = "attr-file",
        value_name = "FILE",
        conflicts_with_all = ["workflow", "project", "domain", "launch_plan", "restore"]
    )]
    pub(crate) attr_file: Option<PathBuf>,
    /// Set again what this version was; see `get --history`
    #[arg(long, value_name = "VERSION")]
    pub(crate) restore: Option<u64>,
    /// Replace the whole, also where updates of the kind merge
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Delete attributes of exactly one place, or of those that a file names
///
/// Shows what would be deleted, and asks. What is set at places below stays. Deleting what is not set succeeds and changes
/// nothing.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct DeleteAttributes {
    #[command(flatten)]
    pub(crate) place: Place,
    /// File that names the places, as `update` takes it; the attributes in it may be left out; - is stdin
    #[arg(
        long = "attrFile",
        alias = "attr-file",
        value_name = "FILE",
        conflicts_with_all = ["workflow", "project", "domain", "launch_plan"]
    )]
    pub(crate) attr_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Whether changes are made, and whether anybody is asked.
#[derive(clap::Args, Clone, Copy)]
#[group(skip)]
pub(crate) struct Consent {
    /// Show what would change, and change nothing
    #[arg(long = "dryRun", alias = "dry-run")]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) force: bool,
}

/// Bring attributes in files into force
///
/// Reads a file, or all *.yaml and *.yml of a directory and those below it, shows all that would change, asks once, and sets
/// what differs. Each document is as `update` takes it and names its kind, as `kind: TASK_RESOURCE`, unless only one kind
/// could be meant. It replaces what is set, also where updates of the kind merge: what the files say is what is in force. If
/// one document is wrong, or two set the same, nothing is applied. Applying the same again changes nothing.
///
/// Exit status 3 if --dryRun finds that something would change.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tokenpool apply -f attributes/ --dryRun
  tokenpool apply -f attributes/ --prune --force
  tokenpool export | sed s/staging/production/ | tokenpool apply -f - --force")]
pub(crate) struct Apply {
    /// File or directory; - is stdin; once for each
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Delete what is set of the program's kinds and not in the files
    #[arg(long)]
    pub(crate) prune: bool,
    /// Take documents of kinds that this program does not know as they are
    #[arg(long)]
    pub(crate) unchecked: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Write all attributes as files that `apply` takes
///
/// To stdout as one stream of YAML documents; or into a directory, a file for each kind and project. What cannot be
/// read is named on stderr, the rest is written, and the exit status is 1.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tokenpool export > attributes.yaml
  tokenpool export -f attributes/ --force")]
pub(crate) struct Export {
    /// Directory to write into, which is made if there is none
    #[arg(short = 'f', long = "file", value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Write into the directory although there are YAML files in it
    #[arg(long, requires = "directory")]
    pub(crate) force: bool,
}
