//! What a request does in its repository, and the scopes of a token for it (distribution spec,
//! auth/scope).

use crate::reference::Repository;

/// What a request does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Access {
    /// The repository.
    pub repository: Repository,
    /// Whether it writes, and not only reads.
    push: bool,
    /// The path of another repository from which it reads.
    from: Option<String>,
}

impl Access {
    /// Reads `repository`.
    pub fn pull(repository: &Repository) -> Self {
        Self { repository: repository.clone(), push: false, from: None }
    }

    /// Reads and writes `repository`.
    pub fn push(repository: &Repository) -> Self {
        Self { push: true, ..Self::pull(repository) }
    }

    /// Mounts a blob of the repository with the path `from` to `repository`.
    pub fn mount(repository: &Repository, from: &str) -> Self {
        Self { from: Some(from.to_owned()), ..Self::push(repository) }
    }

    /// Returns the scopes to request, one per repository. `challenge` has those that the registry
    /// named, separated by spaces.
    ///
    /// A push requests all that it needs at its first challenge, which can name less: the first
    /// request of a push only looks for a blob.
    pub fn scopes(&self, challenge: Option<&str>) -> Vec<String> {
        let own = format!("repository:{}:", self.repository.path());
        let from = self.from.as_ref().map(|from| format!("repository:{from}:"));
        let named = challenge.unwrap_or_default().split_whitespace();
        if !self.push {
            let named: Vec<String> = named.map(str::to_owned).collect();
            return if named.is_empty() { vec![own + "pull"] } else { named };
        }
        let is_known = |scope: &&str| {
            scope.starts_with(&own) || from.as_ref().is_some_and(|from| scope.starts_with(from))
        };
        let others = named.filter(|scope| !is_known(scope)).map(str::to_owned);
        let needed = [Some(own.clone() + "pull,push"), from.clone().map(|from| from + "pull")];
        needed.into_iter().flatten().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_a_push_contain_its_target_and_the_source_of_its_mount() {
        let reference: crate::reference::Reference = "registry.example/a/b".parse().unwrap();
        let repository = reference.repository();
        let pull = Access::pull(repository);
        assert_eq!(pull.scopes(None), ["repository:a/b:pull"]);
        assert_eq!(pull.scopes(Some("x y")), ["x", "y"]);
        let push = Access::push(repository);
        assert_eq!(push.scopes(None), ["repository:a/b:pull,push"]);
        assert_eq!(push.scopes(Some("repository:a/b:pull")), ["repository:a/b:pull,push"]);
        let mount = Access::mount(repository, "c");
        let both = ["repository:a/b:pull,push", "repository:c:pull"];
        assert_eq!(mount.scopes(None), both);
        assert_eq!(mount.scopes(Some("repository:c:pull repository:a/b:push")), both);
        assert_eq!(mount.scopes(Some("registry:x:*"))[2], "registry:x:*");
    }
}
