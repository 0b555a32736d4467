//! First words that are rather commands than images: mistyped names of commands, and commands of
//! docker and similar tools.
//!
//! A word without a host is the name of an official image on Docker Hub, of which there are about
//! 180. None has a name that is refused here.

use clap::{Command, CommandFactory};

use super::failure::Failure;
use super::flags::Cli;

/// Official images whose names are close to a command.
const IMAGES: [&str; 2] = ["gcc", "sl"];

/// Commands of docker, podman, skopeo and crane that rpull does not have.
const COMMANDS: &str = "attach auth builder buildx catalog checkpoint clone compose config \
    container context create delete digest events exec extract image \
    import info init kill kube list login logout logs machine manifest network \
    plugin pod port ps remove rename restart scan search secret service \
    start stats stop sync system top unpause update validate version volume wait";

/// What to use instead of some of [`COMMANDS`].
const INSTEAD: [(&str, &str); 9] = [
    ("delete", "did you mean 'rm'?"),
    ("digest", "did you mean 'resolve'?"),
    ("image", "did you mean 'images'?"),
    ("info", "did you mean 'df'?"),
    ("list", "did you mean 'images'?"),
    ("login", "rpull uses the credentials of `docker login` and `podman login`"),
    ("logout", "rpull uses the credentials of `docker login` and `podman login`"),
    ("remove", "did you mean 'rm'?"),
    ("version", "did you mean '--version'?"),
];

/// Returns why `word` is not taken for an image, if it is rather a command.
pub fn command(word: &str) -> Option<Failure> {
    let lower = word.to_lowercase();
    if word.contains([':', '@', '/']) || IMAGES.contains(&word) {
        return None;
    }
    let instead = INSTEAD.iter().find(|(name, _)| *name == lower);
    let command = Cli::command();
    let advice = match (instead, close_to(&lower, &command).as_slice()) {
        (Some((_, advice)), _) => format!("; {advice}"),
        (None, []) if COMMANDS.split(' ').any(|name| name == lower) => String::new(),
        (None, []) => return None,
        (None, close) => format!("; did you mean '{}'?", close.join("' or '")),
    };
    Some(Failure::usage(
        format!("no such command: '{word}'{advice}"),
        Some(format!("`rpull pull {lower}` pulls an image of that name")),
    ))
}

/// Returns the names of commands that differ from `word` by at most one edit.
fn close_to(word: &str, command: &Command) -> Vec<String> {
    let names = command.get_subcommands().flat_map(|command| {
        let shown = !command.is_hide_set();
        std::iter::once(command.get_name()).chain(command.get_all_aliases()).filter(move |_| shown)
    });
    let names = names.chain(["help"]);
    let close = names.filter(|name| is_one_edit(name, word)).map(str::to_owned);
    close.collect()
}

/// Whether at most one letter is missing, additional, different, or exchanged with its neighbour.
fn is_one_edit(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    match (a, b) {
        ([], []) => true,
        ([a1, a2, a @ ..], [b1, b2, b @ ..]) if (a1, a2) == (b2, b1) && a == b => true,
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([_, a @ ..], b) if a == b => true,
        (a, [_, b @ ..]) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_edit_is_one_letter_or_two_exchanged_neighbours() {
        for word in ["pul", "ull", "pulll", "xpull", "bull", "pulk", "plul", "upll", "pull"] {
            assert!(is_one_edit("pull", word), "{word}");
        }
        for word in ["pu", "pullll", "bulk", "lupl", "llup", "", "perl"] {
            assert!(!is_one_edit("pull", word), "{word}");
        }
    }

    /// Official images with names of up to nine letters; longer ones are not close to a command.
    const OFFICIAL: &str = "adminer aerospike almalinux alpine alt arangodb archlinux backdrop bash \
        bonita busybox caddy cassandra cirros clefos clojure composer consul couchbase couchdb \
        crate dart debian docker drupal eggdrop elixir emqx erlang fedora flink fluentd friendica \
        gazebo gcc ghost golang gradle groovy haproxy haskell haxe hitch httpd hylang ibmjava \
        influxdb irssi java jenkins jetty jobber joomla jruby julia kapacitor kibana known kong \
        krakend liquibase logstash mageia mariadb matomo maven mediawiki memcached mongo monica mono \
        mysql nats neo4j nextcloud nginx node notary nuxeo odoo openjdk opensuse orientdb owncloud \
        percona perl photon php piwik plone postgres pypy python rabbitmq rails rapidoid redis \
        redmine registry ros ruby rust sapmachine satosa scratch sentry sl solr sonarqube spark \
        spiped storm swarm swift swipl teamspeak telegraf thrift tomcat tomee traefik ubuntu unit \
        varnish vault wordpress xwiki yourls znc zookeeper";

    #[test]
    fn official_images_are_not_commands() {
        for word in OFFICIAL.split_whitespace() {
            assert!(command(word).is_none(), "{word}");
        }
        for word in ["run:1", "org/run", "localhost:5000/pul", "pul@sha256:00"] {
            assert!(command(word).is_none(), "{word}");
        }
    }

    #[test]
    fn mistyped_and_foreign_commands_are_refused() {
        for word in
            ["pul", "inspcet", "imgaes", "Images", "mout", "gcs", "hlep", "login", "ps", "run"]
        {
            assert!(command(word).is_some(), "{word}");
        }
    }

    #[test]
    fn advice_is_for_commands_that_do_not_exist() {
        let cli = Cli::command();
        for name in COMMANDS.split(' ') {
            assert!(cli.find_subcommand(name).is_none(), "{name} exists");
        }
        for (name, _) in INSTEAD {
            assert!(COMMANDS.split(' ').any(|command| command == name), "{name}");
        }
        let close: Vec<_> = IMAGES.iter().filter(|name| close_to(name, &cli).is_empty()).collect();
        assert!(close.is_empty(), "not close to a command: {close:?}");
    }
}
