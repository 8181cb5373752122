// From the text that nvcc emits to instructions.
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <regex>

#include "opcode.hpp"

namespace ptx {
namespace {

std::string trimmed(std::string_view s) {
  const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)); };
  while (!s.empty() && space(s.front())) s.remove_prefix(1);
  while (!s.empty() && space(s.back())) s.remove_suffix(1);
  return std::string(s);
}

// At the separators that stand in no brackets.
std::vector<std::string> split(std::string_view s, char separator) {
  std::vector<std::string> parts;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= s.size(); ++i) {
    const char c = i < s.size() ? s[i] : separator;
    if (c == '{' || c == '[' || c == '(') ++depth;
    if (c == '}' || c == ']' || c == ')') --depth;
    if (c != separator || (depth != 0 && i < s.size())) continue;
    parts.push_back(trimmed(s.substr(begin, i - begin)));
    begin = i + 1;
  }
  if (parts.back().empty()) parts.pop_back();
  return parts;
}

// One space between words, none around them: as errors show a statement.
std::string on_one_line(std::string_view s) {
  std::string line;
  for (char c : s) {
    if (std::isspace(static_cast<unsigned char>(c))) c = ' ';
    if (c != ' ' || (!line.empty() && line.back() != ' ')) line += c;
  }
  return trimmed(line);
}

std::size_t aligned(std::size_t at, std::size_t bytes) { return (at + bytes - 1) / bytes * bytes; }

std::uint64_t number(std::string_view text) {
  const std::string s(text);
  if (s.starts_with("0f") || s.starts_with("0F") || s.starts_with("0d") || s.starts_with("0D"))
    return std::strtoull(s.c_str() + 2, nullptr, 16);
  return s[0] == '-' ? std::uint64_t(std::strtoll(s.c_str(), nullptr, 0))
                     : std::strtoull(s.c_str(), nullptr, 0);
}

}  // namespace

int bytes_of(std::string_view type) {
  if (type == "pred") return 0;
  const std::size_t digits = type.find_first_of("0123456789");
  if (digits == std::string_view::npos) throw Error("no type: " + std::string(type));
  return std::atoi(std::string(type.substr(digits)).c_str()) / 8;
}

// ---- registers and symbols ----

// The registers of a kernel, of which nested { } may have some of their own, its constants and the
// addresses of its symbols.
class Scope {
 public:
  explicit Scope(Kernel& kernel) : kernel_(kernel), registers_(1) {
    for (Slot& slot : kernel.special) slot = allocate(4);
  }
  void enter() { registers_.emplace_back(); }
  void leave() { registers_.pop_back(); }

  // ".reg .b32 %r<5>" or ".reg .pred p, q"
  void declare_registers(const std::string& statement) {
    const std::vector<std::string> words = split(statement, ' ');
    const int width = bytes_of(words.at(1).substr(1));
    std::string names;
    for (std::size_t i = 2; i < words.size(); ++i) names += words[i];
    for (const std::string& name : split(names, ',')) {
      const std::size_t count = name.find('<');
      if (count == std::string::npos) {
        declare(name, width);
        continue;
      }
      for (int i = 0; i < std::atoi(name.c_str() + count + 1); ++i)
        declare(name.substr(0, count) + std::to_string(i), width);
    }
  }
  void declare_symbol(const std::string& name, std::uint64_t address) { symbols_[name] = address; }

  struct Register {
    Slot slot;
    int width;  // bytes, 0 of a predicate
  };
  const Register* find(const std::string& name) const {
    for (std::size_t i = registers_.size(); i-- > 0;)
      if (const auto it = registers_[i].find(name); it != registers_[i].end()) return &it->second;
    return nullptr;
  }
  const std::uint64_t* symbol(const std::string& name) const {
    const auto it = symbols_.find(name);
    return it == symbols_.end() ? nullptr : &it->second;
  }
  Slot constant(std::uint64_t value, int width) {
    const auto [it, added] = constants_.try_emplace({value, width}, 0);
    if (added) {
      it->second = allocate(std::max(width, 4));
      kernel_.constants.push_back({it->second, width, value});
    }
    return it->second;
  }
  Slot special(const std::string& name) {
    using enum Special;
    static const std::map<std::string, Special> known{{"%tid.x", kThread},
                                                      {"%laneid", kLane},
                                                      {"%ctaid.x", kBlock},
                                                      {"%ntid.x", kBlockSize},
                                                      {"%nctaid.x", kGridSize}};
    static const std::map<std::string, int> other_axes{
        {"%tid.y", 0},  {"%tid.z", 0},  {"%ctaid.y", 0},  {"%ctaid.z", 0},
        {"%ntid.y", 1}, {"%ntid.z", 1}, {"%nctaid.y", 1}, {"%nctaid.z", 1}};
    if (const auto it = known.find(name); it != known.end())
      return kernel_.special[std::size_t(it->second)];
    if (const auto it = other_axes.find(name); it != other_axes.end())
      return constant(std::uint64_t(it->second), 4);
    throw Error("unknown register " + name);
  }

 private:
  // A predicate is a word; others have a value per lane.
  Slot allocate(int width) {
    const Slot slot = Slot(kernel_.register_bytes);
    kernel_.register_bytes += aligned(width == 0 ? 4 : std::size_t(width) * kWarp, 64);
    return slot;
  }
  void declare(const std::string& name, int width) {
    registers_.back()[name] = {allocate(width), width};
  }

  Kernel& kernel_;
  std::vector<std::map<std::string, Register>> registers_;
  std::map<std::string, std::uint64_t> symbols_;
  std::map<std::pair<std::uint64_t, int>, Slot> constants_;
};

// ---- opcodes and operands ----

Opcode::Opcode(std::string_view text) {
  for (std::string part : split(text, '.')) {
    // "shared::cta" is how newer compilers write "shared".
    if (part == "shared::cta") part = "shared";
    parts_.push_back(part);
  }
  for (std::size_t i = 1; i + 1 < parts_.size(); ++i) left_.insert(i);
}
bool Opcode::take(std::string_view modifier) {
  for (std::size_t i = 1; i < parts_.size(); ++i)
    if (parts_[i] == modifier) {
      left_.erase(i);
      return true;
    }
  return false;
}
const std::string& Opcode::part(std::size_t i) const {
  static const std::string none;
  return i < parts_.size() ? parts_[i] : none;
}
const std::string& Opcode::take_part(std::size_t i) {
  left_.erase(i);
  return part(i);
}
void Opcode::finish() const {
  if (!left_.empty()) throw Error("unknown modifier ." + parts_[*left_.begin()]);
}

std::vector<std::string> Operands::elements(std::size_t i) const {
  const std::string& text = texts_.at(i);
  if (text.starts_with('{')) return split(text.substr(1, text.size() - 2), ',');
  return split(text, '|');
}
Slot Operands::destination(const std::string& text) {
  if (text == "_") return kNoSlot;
  const Scope::Register* found = scope_.find(text);
  if (!found) throw Error("unknown register " + text);
  return found->slot;
}
int Operands::width(const std::string& reg) const {
  if (const Scope::Register* found = scope_.find(reg)) return found->width;
  return reg.starts_with('%') ? 4 : 8;  // special registers and addresses of symbols
}
int Operands::width_of_source(const std::string& text, std::string_view type) const {
  const bool reg = scope_.find(text) || text.starts_with('%');
  return reg ? width(text) : std::max(bytes_of(type), 2);
}
Slot Operands::source(const std::string& text, std::string_view type) {
  if (const Scope::Register* found = scope_.find(text)) return found->slot;
  if (text.starts_with('%')) return scope_.special(text);
  const int bytes = bytes_of(type);
  if (std::isdigit(static_cast<unsigned char>(text[0])) || text[0] == '-') {
    if (bytes == 0) return scope_.constant(number(text) == 0 ? 0 : kAllLanes, 4);
    return scope_.constant(number(text), std::max(bytes, 2));  // no register is narrower
  }
  const std::size_t plus = text.find('+');
  const std::uint64_t* address = scope_.symbol(trimmed(text.substr(0, plus)));
  if (!address) throw Error("unknown operand " + text);
  return scope_.constant(*address + (plus == std::string::npos ? 0 : number(text.substr(plus + 1))),
                         bytes);
}
void Operands::destinations(std::size_t to, Instruction& out) {
  for (const std::string& element : elements(to)) {
    if (out.num_dst == 4) throw Error("more than four destinations");
    out.dst[out.num_dst++] = destination(element);
  }
}
void Operands::add_source(std::size_t i, std::string_view type, Instruction& out) {
  for (const std::string& element : elements(i)) {
    if (out.num_src == 5) throw Error("more than five sources");
    out.src[out.num_src++] = source(element, type);
  }
}
void Operands::simple(std::string_view type, Instruction& out) {
  destinations(0, out);
  for (std::size_t i = 1; i < size(); ++i) add_source(i, type, out);
}
void Operands::address(std::size_t i, Instruction& out) {
  const std::string inside = trimmed(texts_.at(i).substr(1, texts_.at(i).size() - 2));
  const std::size_t plus = inside.find('+');
  const std::string base = trimmed(inside.substr(0, plus));
  if (plus != std::string::npos)
    out.offset = std::int64_t(number(trimmed(inside.substr(plus + 1))));
  out.wide_address = width(base) == 8;
  out.src[out.num_src++] = source(base, out.wide_address ? "u64" : "u32");
}
void Operands::predicate(std::size_t i, Instruction& out) {
  const std::string& text = texts_.at(i);
  out.source_negated = text.starts_with('!');
  out.src[out.num_src++] = source(out.source_negated ? text.substr(1) : text, "pred");
}

void decode(std::string_view opcode_text, Operands& operands, Instruction& out) {
  Opcode opcode(opcode_text);
  bool known = false;
  for (const auto decoder :
       {decode_arithmetic, decode_float, decode_conversion, decode_memory, decode_collective})
    if (!known) known = decoder(opcode, operands, out);
  if (!known) throw Error("unknown instruction");
  opcode.finish();
}

// ---- the text of a kernel ----

namespace {

class BodyParser {
 public:
  BodyParser(Kernel& kernel, Scope& scope, std::string_view text)
      : kernel_(kernel), scope_(scope), text_(text) {}

  void parse() {
    for (int depth = 1; depth > 0;) {
      skip_space();
      const char c = text_.at(at_);
      if (c == '{') {
        ++depth;
        scope_.enter();
        ++at_;
      } else if (c == '}') {
        --depth;
        scope_.leave();
        ++at_;
      } else if (text_.substr(at_).starts_with(".loc")) {
        location(until('\n'));
      } else {
        const std::size_t end = text_.find_first_of(":;", at_);
        if (text_[end] == ':' && text_[end + 1] != ':')
          labels_[trimmed(until(':'))] = std::uint32_t(kernel_.code.size());
        else
          statement(on_one_line(until(';')));
      }
    }
    instruction("ret");  // for a kernel that ends without
    for (const auto& [at, label] : jumps_) {
      const auto it = labels_.find(label);
      if (it == labels_.end()) throw Error("no label " + label);
      kernel_.code[at].target = it->second;
    }
  }

 private:
  void skip_space() {
    while (std::isspace(static_cast<unsigned char>(text_.at(at_)))) ++at_;
  }
  std::string_view until(char end) {
    const std::size_t to = text_.find(end, at_);
    const std::string_view found = text_.substr(at_, to - at_);
    at_ = to + 1;
    return found;
  }
  // ".loc 1 244 0, function_name ..., inlined_at 2 50 3"; line 0 is of nothing that was written.
  // What CUDA's own headers hold belongs to the line that calls it.
  void location(std::string_view text) {
    const std::size_t at = text.find("inlined_at");
    Location inner = location_at(text, 4);
    if (is_cudas(inner) && at != std::string_view::npos) inner = location_at(text, at + 10);
    if (inner.line > 0) location_ = inner;
  }
  static Location location_at(std::string_view text, std::size_t at) {
    Location found;
    std::sscanf(std::string(text.substr(at)).c_str(), "%u %u", &found.file, &found.line);
    return found;
  }
  bool is_cudas(Location l) const {
    return l.file < kernel_.files.size() &&
           kernel_.files[l.file].find("/targets/") != std::string::npos;
  }
  void statement(const std::string& s) {
    if (s.starts_with(".reg"))
      scope_.declare_registers(s);
    else if (s.starts_with(".local") || s.starts_with(".shared"))
      array(s);
    else if (s.starts_with('.') && !s.starts_with(".pragma"))
      throw Error("unknown directive " + s);
    else if (!s.starts_with('.'))
      instruction(mutated(s));
  }
  std::string mutated(std::string s) const {
    Mutation& m = mutation();
    if (m.at < 0 || !kernel_.function.starts_with(m.kernel)) return s;
    const std::size_t at = s.find(m.from);
    if (at != std::string::npos && m.found++ == m.at) s.replace(at, m.from.size(), m.to);
    return s;
  }
  // ".local .align 8 .b8 name[16]"
  void array(const std::string& s) {
    std::smatch m;
    static const std::regex form(R"(\.(local|shared) \.align (\d+) \.\w(\d+) ([\w$]+)\[(\d+)\])");
    if (!std::regex_search(s, m, form)) throw Error("unknown directive " + s);
    const bool local = m[1] == "local";
    std::size_t& used = local ? kernel_.local_bytes : kernel_.shared_bytes;
    used = aligned(used, std::stoul(m[2]));
    scope_.declare_symbol(m[4], used + (local ? 0 : kSharedBase));
    used += std::stoul(m[5]) * std::stoul(m[3]) / 8;
  }
  void instruction(const std::string& s) {
    Instruction out;
    out.text = s;
    out.location = location_;
    if (s.empty()) return;
    try {
      std::string rest = s;
      if (rest[0] == '@') {
        const std::size_t space = rest.find(' ');
        out.guard_negated = rest[1] == '!';
        out.guard =
            Operands(scope_, {})
                .source(rest.substr(out.guard_negated ? 2 : 1, space - (out.guard_negated ? 2 : 1)),
                        "pred");
        rest = trimmed(rest.substr(space));
      }
      const std::size_t space = rest.find(' ');
      Operands operands(scope_, split(space == std::string::npos ? "" : rest.substr(space), ','));
      decode(rest.substr(0, space), operands, out);
      if (out.flow == Flow::kBranch) jumps_.push_back({kernel_.code.size(), operands.text(0)});
    } catch (const std::exception& e) {
      throw Error(std::string(e.what()) + ": " + s + " (" + kernel_.function + ")");
    }
    kernel_.code.push_back(std::move(out));
  }

  Kernel& kernel_;
  Scope& scope_;
  std::string_view text_;
  std::size_t at_ = 0;
  Location location_;
  std::map<std::string, std::uint32_t> labels_;
  std::vector<std::pair<std::size_t, std::string>> jumps_;
};

// ".param .u64 name" or ".param .align 8 .b8 name[24]"
void declare_parameter(const std::string& text, Kernel& kernel, Scope& scope) {
  static const std::regex array(R"(\.param \.align (\d+) \.b8 ([\w$]+)\[(\d+)\]$)"),
      scalar(R"(\.param \.(\w+) (?:\.ptr .*)?([\w$]+)$)");
  std::smatch m;
  std::size_t align, bytes;
  if (std::regex_match(text, m, array)) {
    align = std::stoul(m[1]);
    bytes = std::stoul(m[3]);
  } else if (std::regex_match(text, m, scalar)) {
    align = bytes = std::size_t(bytes_of(m[1].str()));
  } else {
    throw Error("unknown parameter " + text);
  }
  const std::size_t at = aligned(kernel.parameter_bytes, align);
  scope.declare_symbol(m[2], at);
  kernel.parameters.push_back({at, bytes});
  kernel.parameter_bytes = at + bytes;
}

}  // namespace

// ---- modules ----

namespace {

void remove_comments(std::string& text) {
  std::size_t to = 0;
  for (std::size_t from = 0; from < text.size(); ++from) {
    if (text.compare(from, 2, "//") == 0 && (from == 0 || text[from - 1] != '"'))
      from = std::min(text.find('\n', from), text.size() - 1);
    text[to++] = text[from];
  }
  text.resize(to);
}

// Behind the } of the first { from here on.
std::size_t end_of_body(const std::string& text, std::size_t at) {
  int depth = 0;
  for (at = text.find('{', at); at < text.size(); ++at) {
    if (text[at] == '{') ++depth;
    if (text[at] == '}' && --depth == 0) return at + 1;
  }
  throw Error("no PTX: a { without a }");
}

}  // namespace

Module::Module(std::string text) : text_(std::move(text)) {
  remove_comments(text_);
  for (std::size_t at = 0; (at = text_.find(".file\t", at)) != std::string::npos; ++at) {
    const std::size_t number = std::strtoul(text_.c_str() + at + 6, nullptr, 10);
    const std::size_t open = text_.find('"', at), close = text_.find('"', open + 1);
    if (files_.size() <= number) files_.resize(number + 1);
    files_[number] = text_.substr(open + 1, close - open - 1);
  }
  for (std::size_t at = 0; (at = text_.find(".entry", at)) != std::string::npos;) {
    const std::size_t name = at + 6, open = text_.find('(', at), end = end_of_body(text_, at);
    if (open > end) throw Error("no PTX");
    entries_[trimmed(text_.substr(name, open - name))] = {at, end, nullptr};
    at = end;
  }
  if (entries_.empty()) throw Error("no kernel in this PTX");
}

void Module::forget() {
  for (auto& [name, entry] : entries_) entry.kernel.reset();
}

Mutation& mutation() {
  static Mutation m;
  return m;
}

const Kernel* Module::find(std::string_view name) {
  const auto it = entries_.find(name);
  if (it == entries_.end()) return nullptr;
  Entry& entry = it->second;
  if (entry.kernel) return entry.kernel.get();
  auto kernel = std::make_unique<Kernel>();
  kernel->name = name;
  kernel->function = demangled(kernel->name);
  kernel->files = files_;
  Scope scope(*kernel);
  // The only symbol outside of kernels: dynamic shared memory, which begins where arrays end.
  std::smatch m;
  static const std::regex dynamic(R"(\.extern \.shared \.align (\d+) \.b8 ([\w$]+)\[\];)");
  if (std::regex_search(text_, m, dynamic)) scope.declare_symbol(m[2], kSharedBase);
  const std::string_view text =
      std::string_view(text_).substr(entry.begin, entry.end - entry.begin);
  const std::size_t open = text.find('('), close = text.find(')', open),
                    body = text.find('{', close);
  for (const std::string& p : split(text.substr(open + 1, close - open - 1), ','))
    declare_parameter(on_one_line(p), *kernel, scope);
  const std::string directives(text.substr(close, body - close));
  if (std::regex_search(directives, m, std::regex("\\.maxntid\\s+(\\d+)")))
    kernel->max_threads = unsigned(std::stoul(m[1]));
  BodyParser(*kernel, scope, text.substr(body + 1)).parse();
  if (kernel->shared_bytes > 0 && std::regex_search(text_, m, dynamic))
    throw Error("static and dynamic shared memory: " + kernel->function);
  entry.kernel = std::move(kernel);
  return entry.kernel.get();
}

}  // namespace ptx
