//! Proxies that the environment names: for the programs that run here it is enough to have them there, steps get them
//! from BuildKit.

use kiops_events::address::{host_and_port, literal};

const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];
/// Whom to reach without one.
const EXCEPT: &str = "no_proxy";

type Variable = (String, String);

/// What buildctl is told, so that RUN steps have the variables, which are part of neither image nor cache key. A proxy on
/// this machine's loopback is not there for a step, and one with a password would stand in an argument list.
pub fn options(environment: &[Variable]) -> Vec<String> {
    let own = |host: &str| host == "localhost" || literal(host).is_some_and(|ip| ip.is_loopback());
    let reachable = |value: &str| host_and_port(value).is_none_or(|(host, _)| !own(&host));
    let fit = |value: &str| reachable(value) && password(value).is_none();
    let proxies: Vec<_> = proxies(environment).filter(|(_, value)| fit(value)).collect();
    if proxies.is_empty() {
        return Vec::new();
    }
    let except = environment.iter().filter(|(name, _)| name.eq_ignore_ascii_case(EXCEPT));
    let both = proxies.into_iter().chain(except);
    both.flat_map(|(name, value)| ["--opt".to_owned(), format!("build-arg:{name}={value}")]).collect()
}

/// What no log may show: programs name the proxy that refuses them.
pub fn passwords(environment: &[Variable]) -> Vec<Vec<u8>> {
    proxies(environment).filter_map(|(_, value)| Some(password(value)?.into())).collect()
}

fn password(url: &str) -> Option<&str> {
    // A scheme may be left out.
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (user, _) = rest.split(['/', '?']).next()?.rsplit_once('@')?;
    Some(user.split_once(':')?.1)
}

/// Whether names are looked up by a proxy.
pub fn looks_names_up(environment: &[Variable]) -> bool {
    proxies(environment).next().is_some()
}

fn proxies(environment: &[Variable]) -> impl Iterator<Item = &Variable> {
    let is_proxy = |name: &str| PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy));
    environment.iter().filter(move |(name, value)| is_proxy(name) && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Vec<Variable> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn steps_get_the_proxies_that_they_can_reach() {
        let given = environment(&[
            ("PATH", "/bin"),
            ("HTTPS_PROXY", "http://proxy.example:3128"),
            ("https_proxy", "http://ci:s3cret@proxy.example:3128"),
            ("all_proxy", "ci:another@proxy.example:3128"),
            ("http_proxy", "http://localhost:3128"),
            ("ALL_PROXY", ""),
            ("no_proxy", ".example"),
        ]);
        let wanted =
            ["--opt", "build-arg:HTTPS_PROXY=http://proxy.example:3128", "--opt", "build-arg:no_proxy=.example"];
        assert_eq!(options(&given), wanted);
        assert_eq!(
            options(&environment(&[("http_proxy", "http://127.0.0.1:3128"), ("no_proxy", ".example")])),
            [""; 0]
        );
        assert_eq!(passwords(&given), [&b"s3cret"[..], b"another"]);
        assert!(looks_names_up(&given) && !looks_names_up(&environment(&[("ALL_PROXY", ""), ("no_proxy", "x")])));
    }
}
