//! Proxies of the environment: HTTP and SOCKS5, exceptions, and values that are wrong.

use super::{Puller, at, pushed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::socks::Socks;

#[test]
fn socks5_proxy_is_used_and_looks_names_up_if_its_url_says_so() {
    let pushed = pushed("test/socks");
    let socks = Socks::start(None);
    // Only a proxy can reach these.
    let name = at("registry.invalid:5000", &pushed);
    let address = at("192.0.2.1:5000", &pushed);
    for variable in ["ALL_PROXY", "HTTP_PROXY"] {
        let url = format!("socks5h://{}", socks.host);
        Puller::new().pulls(&["--plain-http", &name], &[(variable, &url)]);
    }
    let url = format!("socks5://{}", socks.host);
    Puller::new().pulls(&["--plain-http", &address], &[("all_proxy", &url)]);
    let seen = socks.seen();
    for destination in ["registry.invalid:5000", "192.0.2.1:5000"] {
        assert!(seen.iter().any(|name| name == destination), "{seen:?}");
    }
}

#[test]
fn socks5_proxy_gets_the_user_and_password_of_its_url() {
    let pushed = pushed("test/socks-login");
    let socks = Socks::start(Some(("me", "p@ss")));
    let name = at("registry.invalid:5000", &pushed);
    let url = |login: &str| format!("socks5h://{login}@{}", socks.host);
    Puller::new().pulls(&["--plain-http", &name], &[("ALL_PROXY", &url("me:p%40ss"))]);
    let done = Puller::new().run(&["--plain-http", &name], &[("ALL_PROXY", &url("me:wrong-one"))]);
    assert_eq!(done.code, Some(5), "{done}");
    assert!(done.stderr.contains("(from ALL_PROXY)"), "{done}");
    assert!(!done.to_string().contains("wrong-one"), "{done}");
}

#[test]
fn host_in_no_proxy_is_contacted_directly() {
    let pushed = pushed("test/no-proxy");
    let proxy = Proxy::plain();
    let url = format!("http://{}", proxy.host);
    let name = at("a.registry.invalid:5000", &pushed);
    let env = [("HTTP_PROXY", url.as_str()), ("NO_PROXY", "other, registry.invalid")];
    let done = Puller::new().run(&["--plain-http", &name], &env);
    assert_eq!(done.code, Some(5), "{done}");
    assert!(done.stderr.contains(": a.registry.invalid:5000"), "{done}");
    assert!(!done.stderr.contains("proxy"), "{done}");
    assert_eq!(proxy.requests().len(), 0);
}

#[test]
fn proxy_that_refuses_is_named_with_its_variable() {
    for (scheme, args) in [("https_proxy", vec![]), ("HTTP_PROXY", vec!["--plain-http"])] {
        let args = [args, vec!["registry.invalid:5000/x/y"]].concat();
        for url in ["http://me:hunter2@127.0.0.1:1", "me:hunter2@127.0.0.1:1"] {
            let done = Puller::new().run(&args, &[(scheme, url)]);
            assert_eq!(done.code, Some(5), "{done}");
            let says = format!(
                "rpull: proxy http://127.0.0.1:1 (from {scheme}) refused the connection: \
                 registry.invalid:5000\n"
            );
            assert!(done.stderr.contains(&says), "{done}");
            let hint = format!("hint: check the proxy that {scheme} names");
            assert!(done.stderr.contains(&hint), "{done}");
            assert!(!done.to_string().contains("hunter2"), "{done}");
        }
    }
}

#[test]
fn socks5_proxy_that_cannot_be_reached_is_named() {
    let url = "socks5h://127.0.0.1:1";
    let args = ["--plain-http", "registry.invalid/x/y"];
    let done = Puller::new().run(&args, &[("all_proxy", url)]);
    assert_eq!(done.code, Some(5), "{done}");
    let says = format!("rpull: proxy {url} (from all_proxy) cannot be reached: registry.invalid\n");
    assert!(done.stderr.contains(&says), "{done}");
}

#[test]
fn proxy_that_wants_a_login_gets_a_hint() {
    let proxy = Proxy::every("", Fault::Instead("407 Proxy Authentication Required", "", ""));
    let url = format!("http://{}", proxy.host);
    let done =
        Puller::new().run(&["--plain-http", "registry.invalid/x/y"], &[("HTTP_PROXY", &url)]);
    assert_eq!(done.code, Some(5), "{done}");
    assert!(done.stderr.contains("407: proxy authentication required"), "{done}");
    assert!(done.stderr.contains("hint: put user and password into the proxy's URL"), "{done}");
}

#[test]
fn proxy_url_that_is_not_valid_exits_2_and_names_its_variable() {
    let far = "registry.invalid:5000/x/y";
    for value in ["http://[::1:hunter2", "htp://proxy:3128", "http://proxy:hunter2"] {
        let done = Puller::new().run(&["--plain-http", far], &[("HTTP_PROXY", value)]);
        assert_eq!(done.code, Some(2), "{done}");
        assert!(done.stderr.contains("rpull: invalid proxy URL in HTTP_PROXY: "), "{done}");
        assert!(done.stderr.contains("hint: ") && !done.stderr.contains("hunter2"), "{done}");
    }
    // Loopback registries use no proxy.
    let pushed = pushed("test/no-proxy-for-loopback");
    Puller::new().pulls(&[&pushed.name()], &[("HTTP_PROXY", "htp://proxy")]);
}
