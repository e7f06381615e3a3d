//! Names, parsed once and right ever after.
//!
//! Lengths are in bytes. The byte formats are Flyte's (`<manager>:<plugin>:<name>` for a pool's key,
//! `ex:<project>:<domain>:<execution>-<token>` for a member), so that its propellers and this
//! library can share pools.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::execution::ExecutionId;

/// Longest name, in bytes.
pub const MAX_NAME_LENGTH: usize = 255;

const SEPARATOR: char = ':';

/// The rule for what stands between separators: a part of a namespace, a project, a domain.
pub(crate) fn check_part(field: &'static str, value: &str) -> Result<()> {
    check_printable(field, value)?;
    let forbidden = |c: char| matches!(c, SEPARATOR | '{' | '}') || c.is_whitespace();
    match value.chars().find(|&c| forbidden(c)) {
        Some(c) => Err(Error::invalid(field, value, format!("must not contain {c:?}"))),
        None => Ok(()),
    }
}

/// The rule for names that stand at the end: executions and tokens.
pub(crate) fn check_printable(field: &'static str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid(field, value, "must not be empty"));
    }
    check_length(field, value)?;
    match value.chars().find(|c| c.is_control()) {
        Some(c) => Err(Error::invalid(
            field,
            value,
            format!("must not contain the control character {c:?}"),
        )),
        None => Ok(()),
    }
}

fn check_length(field: &'static str, value: &str) -> Result<()> {
    if value.len() <= MAX_NAME_LENGTH {
        return Ok(());
    }
    let rule = format!("must not be longer than {MAX_NAME_LENGTH} bytes, is {}", value.len());
    Err(Error::invalid(field, value, rule))
}

/// Two valid names as one, of which only the length is left to check.
fn join(field: &'static str, first: &str, second: &str) -> Result<String> {
    let name = [first, ":", second].concat();
    check_length(field, &name)?;
    Ok(name)
}

/// The rule for a namespace: parts joined by `:`.
fn check_parts(field: &'static str, value: &str) -> Result<()> {
    check_length(field, value)?;
    value.split(SEPARATOR).try_for_each(|part| match part {
        "" => Err(Error::invalid(field, value, "must not have an empty part")),
        part => check_part(field, part),
    })
}

/// A newtype over `String` that can only be made through its check.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            ///
            /// [`Error::InvalidArgument`] names the rule that `value` breaks.
            pub fn new(value: impl Into<String>) -> Result<Self> {
                let value = value.into();
                $check($field, &value)?;
                Ok(Self(value))
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(value: &str) -> Result<Self> {
                Self::new(value)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(value: &str) -> Result<Self> {
                Self::new(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name! {
    /// Name of a resource as a plugin knows it: parts joined by `:`.
    ///
    /// A part is not empty and has no `:`, `{`, `}`, white space or control character; the whole is
    /// at most 255 bytes.
    ResourceNamespace, "resource namespace", check_parts
}

impl ResourceNamespace {
    /// The namespace `self:namespace`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the whole would be longer than 255 bytes.
    ///
    /// # Example
    ///
    /// ```
    /// # use tokenpool::ResourceNamespace;
    /// let hive = ResourceNamespace::new("qubole-hive-executor")?;
    /// let pool = hive.create_sub_namespace(&ResourceNamespace::new("default")?)?;
    /// assert_eq!(pool.as_str(), "qubole-hive-executor:default");
    /// # Ok::<(), tokenpool::Error>(())
    /// ```
    pub fn create_sub_namespace(&self, namespace: &Self) -> Result<Self> {
        join("resource namespace", self.as_str(), namespace.as_str()).map(Self)
    }
}

name! {
    /// Id of a plugin, the first part of its pools' names: one part of a namespace.
    PluginId, "plugin id", check_part
}

fn check_pool(field: &'static str, value: &str) -> Result<()> {
    if !value.contains(SEPARATOR) {
        return Err(Error::invalid(field, value, "must be <plugin>:<name>"));
    }
    check_parts(field, value)
}

name! {
    /// Name of a pool: `<plugin>:<name>`, where the name may have several parts.
    ///
    /// The backend puts its own id before it.
    PoolName, "resource namespace", check_pool
}

impl PoolName {
    /// The pool of a plugin's namespace.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the whole would be longer than 255 bytes.
    pub fn of(plugin: &PluginId, namespace: &ResourceNamespace) -> Result<Self> {
        join("resource namespace", plugin.as_str(), namespace.as_str()).map(Self)
    }
}

name! {
    /// The caller's own name for one claim: printable, at most 255 bytes.
    ///
    /// Claiming twice with one token is one claim.
    AllocationToken, "token", check_printable
}

fn check_holder(field: &'static str, value: &str) -> Result<()> {
    check_printable(field, value)?;
    match value.contains(char::is_whitespace) {
        true => Err(Error::invalid(field, value, "must not contain white space")),
        false => Ok(()),
    }
}

name! {
    /// Who claims: the name under which a process's grants are recorded for operators. Printable,
    /// no white space.
    Holder, "holder", check_holder
}

impl Holder {
    /// `<host>/<process id>` of this process.
    pub fn of_this_process() -> Self {
        // The name only informs, so a host without a usable one is no reason to fail.
        let host = std::env::var("HOSTNAME")
            .ok()
            .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
            .unwrap_or_default();
        let process = std::process::id();
        Self::new(format!("{}/{process}", host.trim()))
            .unwrap_or_else(|_| Self(format!("unknown/{process}")))
    }
}

/// A granted token as it stands in the pool: `ex:<project>:<domain>:<execution>-<token>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(String);

impl Member {
    /// The member of an execution's token.
    pub fn new(execution: &ExecutionId, token: &AllocationToken) -> Self {
        let (project, domain, name) = (execution.project(), execution.domain(), execution.name());
        Self(["ex:", project, ":", domain, ":", name, "-", token.as_str()].concat())
    }

    /// Parses a member, as listed by [`Backend::holders`](crate::Backend::holders).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is `ex:<project>:<domain>:<execution>-<token>`.
    pub fn parse(value: &str) -> Result<Self> {
        let wrong =
            || Error::invalid("member", value, "must be ex:<project>:<domain>:<execution>-<token>");
        let member = Self(value.to_owned());
        let (project, domain, rest) = member.parts().ok_or_else(wrong)?;
        check_part("project", project)?;
        check_part("domain", domain)?;
        let (execution, token) = rest.split_once('-').ok_or_else(wrong)?;
        if execution.is_empty() || token.is_empty() || rest.contains(char::is_control) {
            return Err(wrong());
        }
        Ok(member)
    }

    /// A member as somebody put it into the pool, whatever its form: for operators, who may take away also what another
    /// writer put there. Flyte writes `ex:::-<token>`, for example, for an execution without names.
    pub fn found(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The member's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The project and the domain; none in a member that another writer formed differently.
    pub fn scope(&self) -> Option<(&str, &str)> {
        self.parts().map(|(project, domain, _)| (project, domain))
    }

    fn parts(&self) -> Option<(&str, &str, &str)> {
        let mut parts = self.0.strip_prefix("ex:")?.splitn(3, SEPARATOR);
        Some((parts.next()?, parts.next()?, parts.next()?))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_flytes_byte_for_byte() -> Result<()> {
        let execution = ExecutionId::new("testproject", "testdomain", "testname")?;
        let token = AllocationToken::new("abcdefg-hijklmn")?;
        let member = Member::new(&execution, &token);
        assert_eq!(member.as_str(), "ex:testproject:testdomain:testname-abcdefg-hijklmn");
        assert_eq!(Member::parse(member.as_str())?.scope(), Some(("testproject", "testdomain")));
        Ok(())
    }

    #[test]
    fn names_that_break_a_rule_are_refused_with_field_value_and_rule() {
        let long = "x".repeat(256);
        let cases = [
            (
                ResourceNamespace::new("").err(),
                "invalid resource namespace \"\": must not have an empty part",
            ),
            (
                ResourceNamespace::new("a::b").err(),
                "invalid resource namespace \"a::b\": must not have an empty part",
            ),
            (
                ResourceNamespace::new("a b").err(),
                "invalid resource namespace \"a b\": must not contain ' '",
            ),
            (
                ResourceNamespace::new("a{b}").err(),
                "invalid resource namespace \"a{b}\": must not contain '{'",
            ),
            (
                PoolName::new("hive").err(),
                "invalid resource namespace \"hive\": must be <plugin>:<name>",
            ),
            (PluginId::new("a:b").err(), "invalid plugin id \"a:b\": must not contain ':'"),
            (AllocationToken::new("").err(), "invalid token \"\": must not be empty"),
            (
                AllocationToken::new("a\n").err(),
                "invalid token \"a\\n\": must not contain the control character '\\n'",
            ),
            (ExecutionId::new("", "d", "e").err(), "invalid project \"\": must not be empty"),
            (
                ExecutionId::new("p", "d:e", "e").err(),
                "invalid domain \"d:e\": must not contain ':'",
            ),
            (
                Member::parse("ex:p:d").err(),
                "invalid member \"ex:p:d\": must be ex:<project>:<domain>:<execution>-<token>",
            ),
            (
                Member::parse("ex:p:d:-t").err(),
                "invalid member \"ex:p:d:-t\": must be ex:<project>:<domain>:<execution>-<token>",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.map(|e| e.to_string()).as_deref(), Some(text));
        }
        let error = AllocationToken::new(long).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.ends_with("must not be longer than 255 bytes, is 256"), "{error}");
    }

    #[test]
    fn executions_and_tokens_may_hold_anything_printable() -> Result<()> {
        ExecutionId::new("p", "d", "a b:{c}-é")?.with_workflow("app.wf")?.with_launch_plan("lp")?;
        AllocationToken::new("t 1:{x}")?;
        AllocationToken::new("x".repeat(255))?;
        Ok(())
    }
}
