fn main() {
    println!("{}", include_bytes!(env!("GOLDSMITH_AGENT_PATH")).len());
}
