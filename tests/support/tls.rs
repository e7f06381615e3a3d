//! Authorities and certificates, made for a test and gone with it.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

use super::server::{binary, directory};

/// Whether the server under test was built with TLS.
pub(crate) fn is_supported() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    *SUPPORTED.get_or_init(|| {
        // Without a certificate no server starts.
        let arguments = ["--port", "0", "--tls-port", "1"];
        let output = Command::new(binary()).args(arguments).output().unwrap();
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words).into_owned();
        // The first is what Redis before 7.2 says.
        !["Bad directive", "Failed finding TLS support"].iter().any(|no| words.contains(no))
    })
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    Certified,
    Anyone,
}

/// Files with a certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An authority, with its certificates in a private directory. A second one is a stranger to the first.
#[derive(Debug)]
pub(crate) struct Tls {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    count: Cell<usize>,
}

impl Tls {
    /// A new authority.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let tls = Self { directory: directory(), issuer, count: Cell::new(0) };
        fs::write(tls.authority(), tls.issuer.pem()).unwrap();
        tls
    }

    /// File with the certificate of the authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// A certificate for a server with these names and addresses, which it also shows when it is a client of others.
    pub(crate) fn server(&self, names: &[&str]) -> Identity {
        self.issue(Self::of_server(names))
    }

    /// A certificate for a server that was good until 2001.
    pub(crate) fn expired_server(&self, names: &[&str]) -> Identity {
        let mut params = Self::of_server(names);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.issue(params)
    }

    /// A certificate for a client.
    pub(crate) fn client(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn of_server(names: &[&str]) -> CertificateParams {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        // Each becomes a DNS name or an address.
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a server");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn issue(&self, mut params: CertificateParams) -> Identity {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let number = self.count.replace(self.count.get() + 1);
        let file = |ending: &str, text: String| {
            let path = self.directory.path().join(format!("{number}.{ending}"));
            fs::write(&path, text).unwrap();
            path
        };
        Identity {
            certificate: file("pem", certificate.pem()),
            key: file("key", key.serialize_pem()),
        }
    }

    /// Lines for the configuration of a server, or of a sentinel, on 127.0.0.1 alias localhost.
    pub(crate) fn settings(&self, clients: Clients) -> Vec<String> {
        self.settings_of(&self.server(&["127.0.0.1", "localhost"]), clients)
    }

    /// Lines for the configuration of a server that shows this certificate.
    pub(crate) fn settings_of(&self, server: &Identity, clients: Clients) -> Vec<String> {
        let wanted = match clients {
            Clients::Certified => "yes",
            Clients::Anyone => "no",
        };
        vec![
            format!("tls-cert-file {}", server.certificate.display()),
            format!("tls-key-file {}", server.key.display()),
            format!("tls-ca-cert-file {}", self.authority().display()),
            format!("tls-auth-clients {wanted}"),
            "tls-replication yes".to_owned(),
            "tls-cluster yes".to_owned(),
        ]
    }

    /// The same as arguments.
    pub(crate) fn server_arguments(&self, clients: Clients) -> Vec<String> {
        as_arguments(&self.settings(clients))
    }
}

/// Lines of a configuration as arguments.
pub(crate) fn as_arguments(settings: &[String]) -> Vec<String> {
    let words = settings.iter().flat_map(|setting| setting.split_once(' '));
    words.flat_map(|(name, value)| [format!("--{name}"), value.to_owned()]).collect()
}
