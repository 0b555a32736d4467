use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use super::super::tls_problem::TlsProblem;
use super::*;

/// 2026-01-01.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));

/// A self-signed certificate with `names`, as `openssl req -x509` makes it if `ca` is set.
fn certificate(names: &[&str], ca: bool, years: [i32; 2]) -> CertificateDer<'static> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    [params.not_before, params.not_after] = years.map(|year| rcgen::date_time_ymd(year, 1, 1));
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

/// A verifier for `host` with `certificates` in its directory.
fn verifier(host: &str, certificates: &[CertificateDer<'static>], unverified: bool) -> Verifier {
    let mut roots = RootCertStore::empty();
    certificates.iter().for_each(|certificate| roots.add(certificate.clone()).unwrap());
    let trust = HostTrust {
        host: Some(ServerName::try_from(host.to_owned()).unwrap()),
        roots,
        certificates: certificates.to_vec(),
        unverified,
    };
    let system = SystemRoots::default();
    // One that nothing here is signed by.
    let mut other = RootCertStore::empty();
    other.add(certificate(&["other"], true, [2025, 2027])).unwrap();
    system.0.set(other).unwrap();
    Verifier::new(trust, Arc::new(system), &rustls::crypto::ring::default_provider())
}

/// Verifies `leaf` as that of `name`.
fn verify(
    verifier: &Verifier,
    leaf: &CertificateDer<'_>,
    name: &str,
) -> Result<(), Option<TlsProblem>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let verified = verifier.verify_server_cert(leaf, &[], &name, &[], NOW);
    verified.map(drop).map_err(|error| TlsProblem::of(&error, true))
}

#[test]
fn certificate_in_the_directory_of_its_host_is_accepted_even_that_of_a_ca() {
    for ca in [true, false] {
        let leaf = certificate(&["registry.lan", "127.0.0.1"], ca, [2025, 2027]);
        let own = verifier("registry.lan", std::slice::from_ref(&leaf), false);
        assert_eq!(verify(&own, &leaf, "registry.lan"), Ok(()), "{ca}");
        let by_ip = verifier("127.0.0.1", std::slice::from_ref(&leaf), false);
        assert_eq!(verify(&by_ip, &leaf, "127.0.0.1"), Ok(()), "{ca}");
    }
}

#[test]
fn certificate_that_differs_from_the_one_in_the_directory_is_refused() {
    let known = certificate(&["registry.lan"], true, [2025, 2027]);
    for ca in [true, false] {
        let other = certificate(&["registry.lan"], ca, [2025, 2027]);
        let own = verifier("registry.lan", std::slice::from_ref(&known), false);
        assert!(verify(&own, &other, "registry.lan").is_err(), "{ca}");
    }
}

#[test]
fn certificate_in_the_directory_of_another_host_is_refused() {
    let leaf = certificate(&["registry.lan", "proxy.lan"], true, [2025, 2027]);
    let own = verifier("registry.lan", std::slice::from_ref(&leaf), false);
    assert_eq!(verify(&own, &leaf, "proxy.lan"), Err(Some(TlsProblem::SelfSigned)));
}

#[test]
fn dates_and_names_of_a_certificate_in_the_directory_are_verified() {
    for ca in [true, false] {
        let fails = |names: &[&str], years| {
            let leaf = certificate(names, ca, years);
            let own = verifier("registry.lan", std::slice::from_ref(&leaf), false);
            verify(&own, &leaf, "registry.lan").unwrap_err().unwrap()
        };
        let right = ["registry.lan"];
        assert!(matches!(fails(&right, [2024, 2025]), TlsProblem::Expired { .. }), "{ca}");
        assert!(matches!(fails(&right, [2027, 2028]), TlsProblem::NotYetValid { .. }), "{ca}");
        let names = vec!["*.other.lan".to_owned(), "10.0.0.1".to_owned()];
        let wrong = fails(&["*.other.lan", "10.0.0.1"], [2025, 2027]);
        assert_eq!(wrong, TlsProblem::WrongName { names }, "{ca}");
        assert_eq!(fails(&[], [2025, 2027]), TlsProblem::NoNames, "{ca}");
    }
}

#[test]
fn certificate_without_a_trusted_issuer_has_a_problem_that_says_why() {
    let none = verifier("registry.lan", &[], false);
    for ca in [true, false] {
        let leaf = certificate(&["registry.lan"], ca, [2025, 2027]);
        assert_eq!(verify(&none, &leaf, "registry.lan"), Err(Some(TlsProblem::SelfSigned)));
    }
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let signed = |ca: bool| {
        let mut params = CertificateParams::new(["registry.lan".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name.push(rcgen::DnType::CommonName, "registry");
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
    };
    let fails = |leaf| verify(&none, &leaf, "registry.lan").unwrap_err().unwrap();
    assert_eq!(fails(signed(false)), TlsProblem::UnknownIssuer);
    assert_eq!(fails(signed(true)), TlsProblem::CaCertificate);
    let known = verifier("registry.lan", &[issuer.der().clone()], false);
    assert_eq!(verify(&known, &signed(false), "registry.lan"), Ok(()));
    assert_eq!(verify(&known, &signed(false), "127.0.0.1"), Err(Some(TlsProblem::UnknownIssuer)));
}

#[test]
fn system_without_ca_certificates_is_the_reason_that_a_ca_is_unknown() {
    let mut none = verifier("registry.lan", &[], false);
    none.system = Arc::new(SystemRoots(RootCertStore::empty().into()));
    let params = CertificateParams::new(["registry.lan".to_owned()]).unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "a CA");
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let failed = verify(&none, leaf.der(), "registry.lan");
    assert_eq!(failed, Err(Some(TlsProblem::NoSystemRoots)));
}

#[test]
fn any_certificate_of_an_unverified_host_is_accepted_and_none_of_another() {
    let old = certificate(&["other.lan"], true, [2023, 2024]);
    let unverified = verifier("registry.lan", &[], true);
    assert_eq!(verify(&unverified, &old, "registry.lan"), Ok(()));
    assert!(matches!(
        verify(&unverified, &old, "other.lan"),
        Err(Some(TlsProblem::Expired { .. }))
    ));
}
