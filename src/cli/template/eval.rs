//! Evaluation of a template, with the rules of Go's text/template for truth and printing.

use serde_json::Value;

use rpull::printable;

use super::parse::{Block, Command, Node, Operand, Pipeline};

/// Renders `nodes` with `data`; see [`Template::render`](super::Template::render).
///
/// # Errors
/// A field does not exist, or a function cannot handle a value.
pub fn render(nodes: &[Node], data: &Value) -> Result<String, String> {
    let mut scope = Scope { out: String::new(), variables: vec![(String::new(), data.clone())] };
    scope.nodes(nodes, data)?;
    Ok(scope.out)
}

/// A result on its way through a pipeline.
enum Term {
    /// A value of the data, not escaped.
    Data(Value),
    /// Text that is safe to print.
    Safe(String),
}

struct Scope {
    out: String,
    variables: Vec<(String, Value)>,
}

impl Scope {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out += &literal(text),
                Node::Print(pipeline) => {
                    let term = self.pipeline(pipeline, dot)?;
                    self.out += &printed(&term);
                }
                Node::Block(block, pipeline, body, otherwise) => {
                    let value = data(self.pipeline(pipeline, dot)?);
                    let known = self.variables.len();
                    if is_true(&value) {
                        self.block(block, &value, body, dot)?;
                    } else {
                        self.nodes(otherwise, dot)?;
                    }
                    self.variables.truncate(known);
                }
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        block: &Block,
        value: &Value,
        body: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let (index, element) = match block {
            Block::If => return self.nodes(body, dot),
            Block::With => return self.nodes(body, value),
            Block::Range(index, element) => (index, element),
        };
        let elements: Vec<(Value, &Value)> = match value {
            Value::Array(all) => all.iter().enumerate().map(|(n, it)| (n.into(), it)).collect(),
            Value::Object(all) => all.iter().map(|(key, it)| (key.as_str().into(), it)).collect(),
            other => return Err(format!("range cannot iterate over {}", kind(other))),
        };
        let known = self.variables.len();
        for (position, it) in elements {
            self.variables.truncate(known);
            let position = index.iter().map(|name| (name.clone(), position.clone()));
            self.variables.extend(position);
            self.variables.extend(element.iter().map(|name| (name.clone(), it.clone())));
            self.nodes(body, it)?;
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Term, String> {
        let mut last = None;
        for command in pipeline {
            last = Some(match command {
                Command::Value(operand) => Term::Data(self.operand(operand, dot)?),
                Command::Call(name, arguments) => {
                    let arguments = arguments.iter().map(|it| self.operand(it, dot));
                    let mut arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                    arguments.extend(last.map(data));
                    call(name, &arguments).map_err(|why| format!("{name}: {why}"))?
                }
            });
        }
        last.ok_or_else(|| "a value is missing".to_owned())
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Field(path) => field(dot, path),
            Operand::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| format!("there is no variable ${name}"))?;
                field(value, path)
            }
            Operand::Constant(value) => Ok(value.clone()),
            Operand::Group(pipeline, path) => field(&data(self.pipeline(pipeline, dot)?), path),
        }
    }
}

/// Returns a field. One that the image's config may lack is null, as in an image that Docker built; a
/// field that no image has is an error.
fn field(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut at = value;
    for (depth, name) in path.iter().enumerate() {
        at = match at {
            Value::Object(fields) => match fields.get(name) {
                Some(value) => value,
                None if depth > 0 => &Value::Null,
                None => {
                    let known: Vec<_> = fields.keys().map(String::as_str).collect();
                    return Err(format!("there is no field .{name}, only {}", known.join(", ")));
                }
            },
            Value::Null => &Value::Null,
            other => return Err(format!("{} has no field .{name}", kind(other))),
        };
    }
    Ok(at.clone())
}

fn call(name: &str, arguments: &[Value]) -> Result<Term, String> {
    let value = |value: Value| Ok(Term::Data(value));
    match (name, arguments) {
        ("json", [it]) => Ok(Term::Safe(printable::escape_json(&it.to_string()).into_owned())),
        ("join", [Value::Null, Value::String(_)]) => Ok(Term::Safe(String::new())),
        ("join", [Value::Array(all), Value::String(separator)]) => {
            let all: Vec<String> = all.iter().map(text).collect();
            Ok(Term::Safe(all.join(&literal(separator))))
        }
        ("len", [it]) => value(length(it)?.into()),
        ("index", [first, keys @ ..]) if !keys.is_empty() => {
            value(keys.iter().try_fold(first.clone(), |it, key| index(&it, key))?)
        }
        ("println", all) => {
            let all: Vec<String> = all.iter().map(text).collect();
            Ok(Term::Safe(all.join(" ") + "\n"))
        }
        ("upper", [Value::String(it)]) => value(it.to_uppercase().into()),
        ("lower", [Value::String(it)]) => value(it.to_lowercase().into()),
        ("split", [Value::String(it), Value::String(separator)]) if !separator.is_empty() => {
            value(it.split(separator.as_str()).collect::<Vec<_>>().into())
        }
        ("eq", [first, others @ ..]) if !others.is_empty() => value(others.contains(first).into()),
        ("ne", [first, second]) => value((first != second).into()),
        ("not", [it]) => value((!is_true(it)).into()),
        ("and", [others @ .., last]) => {
            value(others.iter().find(|it| !is_true(it)).unwrap_or(last).clone())
        }
        ("or", [others @ .., last]) => {
            value(others.iter().find(|it| is_true(it)).unwrap_or(last).clone())
        }
        _ => {
            let kinds: Vec<_> = arguments.iter().map(kind).collect();
            Err(format!("it does not take these arguments: {}", kinds.join(", ")))
        }
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        // Go returns the empty value of a map for a key that it lacks.
        (Value::Object(fields), Value::String(key)) => {
            Ok(fields.get(key).cloned().unwrap_or_else(|| "".into()))
        }
        (Value::Null, _) => Ok("".into()),
        (Value::Array(all), key) => {
            let at = key.as_u64().and_then(|at| usize::try_from(at).ok());
            let found = at.and_then(|at| all.get(at)).cloned();
            found.ok_or_else(|| format!("there is no element {key} of {}", all.len()))
        }
        (other, _) => Err(format!("{} has no elements", kind(other))),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    Ok(match value {
        Value::Null => 0,
        Value::String(text) => text.len(),
        Value::Array(all) => all.len(),
        Value::Object(fields) => fields.len(),
        other => return Err(format!("{} has no length", kind(other))),
    })
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(it) => *it,
        Value::Number(it) => it.as_f64() != Some(0.0),
        other => length(other).is_ok_and(|length| length > 0),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn data(term: Term) -> Value {
    match term {
        Term::Data(value) => value,
        Term::Safe(text) => text.into(),
    }
}

fn printed(term: &Term) -> String {
    match term {
        Term::Safe(text) => text.clone(),
        Term::Data(value) => text(value),
    }
}

/// Returns a value as Go prints it, escaped.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => printable::escape(text).into_owned(),
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(text).collect();
            format!("[{}]", all.join(" "))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let all = fields.map(|(key, it)| format!("{}:{}", printable::escape(key), text(it)));
            format!("map[{}]", all.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// Returns text of the template's author, with its newlines and tabs.
fn literal(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c => printable::escape(c.encode_utf8(&mut [0; 4])).into_owned(),
    };
    text.chars().map(safe).collect()
}
