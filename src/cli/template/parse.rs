//! From tokens to the nodes of a template.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

use super::FUNCTIONS;
use super::lex::{Piece, Token};

/// Parentheses and blocks within each other, at most: each takes a part of the stack.
const DEEPEST: usize = 50;

/// A part of a template.
#[derive(Debug, Clone)]
pub enum Node {
    /// Literal text.
    Text(String),
    /// Prints a value.
    Print(Pipeline),
    /// A block, with what `else` gives.
    Block(Block, Pipeline, Vec<Node>, Vec<Node>),
}

/// A kind of block.
#[derive(Debug, Clone)]
pub enum Block {
    /// `range`, with the variables for the position and the element.
    Range(Option<String>, Option<String>),
    /// `if`.
    If,
    /// `with`.
    With,
}

/// Commands whose results are the last argument of the next one.
pub type Pipeline = Vec<Command>;

/// A value, or a function with its arguments.
#[derive(Debug, Clone)]
pub enum Command {
    /// A value.
    Value(Operand),
    /// A function of [`FUNCTIONS`].
    Call(String, Vec<Operand>),
}

/// A value.
#[derive(Debug, Clone)]
pub enum Operand {
    /// A field of the current element.
    Field(Vec<String>),
    /// A variable, and a field of it. The name of the whole data is empty.
    Variable(String, Vec<String>),
    /// A constant.
    Constant(Value),
    /// A pipeline in parentheses, and a field of its result.
    Group(Pipeline, Vec<String>),
}

/// Parses a whole template.
///
/// # Errors
/// What is wrong or unsupported.
pub fn nodes(pieces: Vec<Piece>) -> Result<Vec<Node>, String> {
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0 };
    match parser.block()? {
        (nodes, End::OfTemplate) => Ok(nodes),
        (_, End::Else(_)) => Err("'else' is outside of a block".to_owned()),
        (_, End::OfBlock) => Err("'end' is outside of a block".to_owned()),
    }
}

/// What ends a list of nodes.
enum End {
    OfTemplate,
    OfBlock,
    /// `else`, with the tokens of the `if` that may follow it.
    Else(Vec<Token>),
}

struct Parser {
    pieces: IntoIter<Piece>,
    depth: usize,
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, End), String> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "end" => return Ok((nodes, End::OfBlock)),
                "else" => return Ok((nodes, End::Else(tokens[1..].to_vec()))),
                "if" | "range" | "with" => nodes.push(self.of_keyword(tokens)?),
                "block" | "define" | "template" | "break" | "continue" => {
                    return Err(format!("'{keyword}' is not supported"));
                }
                _ => nodes.push(Node::Print(whole_pipeline(tokens)?)),
            }
        }
        Ok((nodes, End::OfTemplate))
    }

    /// Parses a block from its keyword on.
    fn of_keyword(&mut self, mut tokens: Vec<Token>) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("there are more than {DEEPEST} blocks within each other"));
        }
        let keyword = tokens.remove(0);
        let is = |word: &str| keyword == Token::Word(word.to_owned());
        let block = match () {
            () if is("if") => Block::If,
            () if is("with") => Block::With,
            () => {
                let (index, element) = variables(&mut tokens);
                Block::Range(index, element)
            }
        };
        let pipeline = whole_pipeline(tokens)?;
        let (body, end) = self.block()?;
        let otherwise = match end {
            End::OfBlock => Vec::new(),
            End::OfTemplate => return Err("a block has no {{end}}".to_owned()),
            // `else if` ends with the same `end`.
            End::Else(tokens) if !tokens.is_empty() => vec![self.of_keyword(tokens)?],
            End::Else(_) => match self.block()? {
                (nodes, End::OfBlock) => nodes,
                _ => return Err("a block has no {{end}}".to_owned()),
            },
        };
        self.depth -= 1;
        Ok(Node::Block(block, pipeline, body, otherwise))
    }
}

/// Takes `$index, $element :=` or `$element :=` from the beginning.
fn variables(tokens: &mut Vec<Token>) -> (Option<String>, Option<String>) {
    let name = |token: &Token| match token {
        Token::Variable(path) if path.len() == 1 && !path[0].is_empty() => Some(path[0].clone()),
        _ => None,
    };
    let found = match tokens.as_slice() {
        [element, Token::Mark(":="), ..] => (None, name(element), 2),
        [index, Token::Mark(","), element, Token::Mark(":="), ..] => {
            (name(index), name(element), 4)
        }
        _ => return (None, None),
    };
    tokens.drain(..found.2);
    (found.0, found.1)
}

fn whole_pipeline(tokens: Vec<Token>) -> Result<Pipeline, String> {
    let mut tokens = tokens.into_iter().peekable();
    let pipeline = pipeline(&mut tokens, 0)?;
    match tokens.next() {
        None => Ok(pipeline),
        Some(token) => Err(unexpected(&token)),
    }
}

type Tokens = Peekable<IntoIter<Token>>;

/// Parses up to the end, or to `)`, which stays.
fn pipeline(tokens: &mut Tokens, depth: usize) -> Result<Pipeline, String> {
    let mut commands = vec![command(tokens, depth)?];
    while tokens.next_if_eq(&Token::Mark("|")).is_some() {
        match command(tokens, depth)? {
            Command::Value(_) => return Err("only a function can follow '|'".to_owned()),
            call @ Command::Call(..) => commands.push(call),
        }
    }
    Ok(commands)
}

fn command(tokens: &mut Tokens, depth: usize) -> Result<Command, String> {
    let is_function =
        |token: &Token| matches!(token, Token::Word(word) if constant(word).is_none());
    if let Some(Token::Word(name)) = tokens.next_if(is_function) {
        if !FUNCTIONS.contains(&name.as_str()) {
            return Err(format!(
                "the function '{name}' is not supported; supported are {}",
                FUNCTIONS.join(", ")
            ));
        }
        let mut arguments = Vec::new();
        while tokens.peek().is_some_and(|token| !matches!(token, Token::Mark("|" | ")"))) {
            arguments.push(operand(tokens, depth)?);
        }
        return Ok(Command::Call(name, arguments));
    }
    Ok(Command::Value(operand(tokens, depth)?))
}

fn operand(tokens: &mut Tokens, depth: usize) -> Result<Operand, String> {
    let token = tokens.next().ok_or("a value is missing")?;
    Ok(match token {
        Token::Field(path) => Operand::Field(path),
        Token::Variable(mut path) => Operand::Variable(path.remove(0), path),
        Token::Text(text) => Operand::Constant(text.into()),
        Token::Number(number) => Operand::Constant(number.into()),
        Token::Mark("(") if depth < DEEPEST => {
            let inner = pipeline(tokens, depth + 1)?;
            if tokens.next() != Some(Token::Mark(")")) {
                return Err("')' is missing".to_owned());
            }
            let path = match tokens
                .next_if(|token| matches!(token, Token::Field(path) if !path.is_empty()))
            {
                Some(Token::Field(path)) => path,
                _ => Vec::new(),
            };
            Operand::Group(inner, path)
        }
        Token::Word(ref word) => {
            Operand::Constant(constant(word).ok_or_else(|| unexpected(&token))?)
        }
        Token::Mark(_) => return Err(unexpected(&token)),
    })
}

fn constant(word: &str) -> Option<Value> {
    match word {
        "true" => Some(true.into()),
        "false" => Some(false.into()),
        "nil" => Some(Value::Null),
        _ => None,
    }
}

fn unexpected(token: &Token) -> String {
    match token {
        Token::Mark(mark) => format!("unexpected '{mark}'"),
        Token::Word(word) => format!("unexpected '{word}'"),
        Token::Text(text) => format!("unexpected \"{text}\""),
        Token::Number(number) => format!("unexpected {number}"),
        Token::Field(path) => format!("unexpected '.{}'", path.join(".")),
        Token::Variable(path) => format!("unexpected '${}'", path.join(".")),
    }
}
