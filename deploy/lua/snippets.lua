-- Runs the Lua of Ingresses (annotation server-snippet) inside Traffic Server.  tslua.so loads this file once into each of its Lua states,
-- in the rule of remap.config, right after kubernetes_remap.so:
--
--   ... @plugin=kubernetes_remap.so ... @plugin=tslua.so @pparam=--states=N @pparam=/PREFIX/lib/snippets.lua
--
-- It is the same for everybody and holds nobody's data: what is to run comes from the routing table of libatsk8s.so, through FFI
-- (plugin_c/hooks/snippets.h).  Snippets are strangers' programs, so what they get is made here by hand: values and functions that reach neither
-- the process nor another snippet.  A table that several snippets can reach is never handed out, but a userdata in front of it, which neither
-- rawset nor table.insert can change.  docs/snippets.md is the specification.

-- A state may load this for several rules: one instance serves them all.
local NAME = "atsk8s.snippets"
if package.loaded[NAME] then
  do_remap = package.loaded[NAME]
  return
end

local ffi = require("ffi")
local jit = require("jit")

ffi.cdef([[
struct atsk_snippet {
  uint64_t id;
  const char *object;
  size_t object_len;
  const char *text;
  size_t text_len;
};
uint32_t atsk_snippets_version(void);
int atsk_snippet_take(uint64_t txn, struct atsk_snippet *out);
void atsk_snippet_report(int result, const char *object, size_t object_len, const char *message, size_t message_len);
]])

local VERSION = 1
local LIBRARY = "libatsk8s.so" -- by its soname: the one that kubernetes_remap.so has loaded, wherever it lies
local RAN, SYNTAX, ERROR, STOPPED, MEMORY, SUSPENDED, SAID = 0, 1, 2, 3, 4, 5, 6 -- enum atsk_snippet_result
local COMPILED_MAX = 256 -- versions of snippets kept by a state, twice: see `compiled`
local STRIKES_MAX = 3 -- stops within STRIKES_S that suspend a version
local STRIKES_S = 60
local STEPS_MAX = 5e7 -- of one match of a pattern, in the worst case: a quarter of a second
local STEPS_LOOK = 1e5 -- beyond it the time that a run has is looked at first
local PATTERN_MAX = 1024 -- bytes
local TOLD_MAX = 5 -- lines in the log a second, of one version in one state
local WRITES_MAX = 200 -- changes of headers and the like by one request: Traffic Server's own memory for them is in no bound of Lua's
local GSUB_DEPTH_MAX = 8 -- of gsub in a function that gsub calls: each takes 9 KiB of the thread's stack

local error, getmetatable, ipairs, load, newproxy, next, pairs = error, getmetatable, ipairs, load, newproxy, next, pairs
local pcall, rawequal, rawget, rawset, select, setfenv, setmetatable = pcall, rawequal, rawget, rawset, select, setfenv, setmetatable
local tonumber, tostring, type, unpack, collectgarbage = tonumber, tostring, type, unpack, collectgarbage
local byte, char, find, gmatch, gsub, match, sub, format = string.byte, string.char, string.find, string.gmatch, string.gsub, string.match, string.sub, string.format
local math_max, real_string = math.max, string
local real = ts
local real_now, real_hook, real_debug = ts.now, ts.hook, ts.debug

local core = ffi.load(LIBRARY)
if core.atsk_snippets_version() ~= VERSION then
  error("snippets.lua and " .. LIBRARY .. " are of different versions: install both anew")
end
local guard = assert(package.loadlib(LIBRARY, "atsk_snippet_guard"))
local is_over = assert(package.loadlib(LIBRARY, "atsk_snippet_is_over"))
if select("#", guard(type, nil)) ~= 2 then
  error("snippets.lua needs libluajit-5.1.so.2")
end
local OVER = "stopped: too many instructions, or too much time" -- as on_tick() says
local taken = ffi.new("struct atsk_snippet")

-- The request whose snippet, or hook of it, runs: { entry = its version, hooks = by kind, n_writes = changes so far }; nil: none does.
local running = nil

local function report(result, object, message)
  core.atsk_snippet_report(result, object, #object, message, #message)
end

-- The same, but not all of the log's room for one snippet: its lines beyond some a second are left out.
local function tell(result, entry, message)
  if message ~= "" then
    local now_s = real_now()
    if now_s - entry.told_s >= 1 or now_s < entry.told_s then
      entry.told_s, entry.n_told = now_s, 0
    end
    entry.n_told = entry.n_told + 1
    if entry.n_told > TOLD_MAX then
      message = ""
    end
  end
  report(result, entry.object, message)
end

-- An error's text: an error may be any value, and its __tostring the snippet's own.
local function text_of(problem)
  if type(problem) == "string" then
    return problem
  end
  return "an error that is no text, but a " .. type(problem)
end

-- --- what snippets see: tables that cannot be changed ----------------------------------------------------------------------------

local function refuse()
  error("this cannot be changed", 2)
end

local function sealed(content)
  local proxy = newproxy(true)
  local meta = getmetatable(proxy)
  meta.__index = content
  meta.__newindex = refuse
  meta.__metatable = false
  return proxy
end

local function picked(from, names)
  local content = {}
  for name in gmatch(names, "%S+") do
    content[name] = from[name]
  end
  return content
end

-- --- strings: patterns are matched by C, which no budget interrupts, and may take time without end -----------------------------------

local FACTORIAL = { [0] = 1, 1, 2, 6, 24, 120, 720 }

-- How many items of a pattern repeat; whether it begins at its subject's start; bytes of its longest [set].
local function shape_of(pattern)
  local n, i, is_anchored, longest = 0, 1, byte(pattern, 1) == 94, 0
  while i <= #pattern do
    local c = byte(pattern, i)
    if c == 37 then -- %
      if byte(pattern, i + 1) == 98 then -- %bxy
        n, i = n + 1, i + 2
      end
      i = i + 2
    elseif c == 91 then -- [set]
      local first = i
      i = i + 1
      if byte(pattern, i) == 94 then
        i = i + 1
      end
      repeat -- a ] that comes first is one of the set
        if byte(pattern, i) == 37 then
          i = i + 1
        end
        i = i + 1
      until i > #pattern or byte(pattern, i) == 93
      longest = math_max(longest, i - first)
      i = i + 1
    else
      if c == 42 or c == 43 or c == 45 or c == 63 then -- * + - ?
        n = n + 1
      end
      i = i + 1
    end
  end
  return n, is_anchored, longest
end

local function check_pattern(subject, pattern, is_never_anchored)
  if (type(subject) ~= "string" and type(subject) ~= "number") or (type(pattern) ~= "string" and type(pattern) ~= "number") then
    return -- string.find and the others complain themselves
  end
  subject, pattern = tostring(subject), tostring(pattern)
  if #pattern > PATTERN_MAX then
    error(format("a pattern has %d bytes, at most %d are taken", #pattern, PATTERN_MAX), 3)
  end
  local n, is_anchored, longest = shape_of(pattern)
  local power = (is_anchored and not is_never_anchored) and n or n + 1
  local width = n == 0 and #pattern / 4 or #pattern / 32 + longest / 4
  local n_steps = (#subject + 1) ^ power / (FACTORIAL[power] or 720) * (1 + width)
  if n_steps > STEPS_MAX then
    error(format("a pattern with %d repetitions is too costly for a text of %d bytes", n, #subject), 3)
  end
  if n_steps > STEPS_LOOK and is_over() then
    error(OVER, 0)
  end
end

local safe_string = picked(string, "byte char format len lower rep reverse sub upper")
function safe_string.find(subject, pattern, init, is_plain)
  if not is_plain then
    check_pattern(subject, pattern)
  elseif type(subject) == "string" and type(pattern) == "string" and #subject * (1 + #pattern / 4) > STEPS_MAX then
    error("the texts are too long to be searched", 2)
  end
  return find(subject, pattern, init, is_plain)
end
function safe_string.match(subject, pattern, init)
  check_pattern(subject, pattern)
  return match(subject, pattern, init)
end
function safe_string.gmatch(subject, pattern)
  check_pattern(subject, pattern, true)
  return gmatch(subject, pattern)
end
local gsub_depth = 0
local function gsub_left(...)
  gsub_depth = gsub_depth - 1
  return ...
end
function safe_string.gsub(subject, pattern, replacement, n_max)
  check_pattern(subject, pattern)
  if gsub_depth >= GSUB_DEPTH_MAX then
    error("gsub within gsub, too often", 2)
  end
  gsub_depth = gsub_depth + 1
  return gsub_left(gsub(subject, pattern, replacement, n_max))
end

-- ("x"):rep(2) looks here; scripts of the administrator's in the same Lua states keep what they had.
getmetatable("").__index = function(_, name)
  if running then
    return safe_string[name]
  end
  return real_string[name]
end

-- --- Lua's own functions -----------------------------------------------------------------------------------------------------------

local function settled(depth, is_fine, ...)
  gsub_depth = depth
  if not is_fine and is_over() then
    error((...), 0) -- a snippet over its bounds cannot catch that
  end
  return is_fine, ...
end

local base = {
  _VERSION = _VERSION,
  assert = assert,
  error = error,
  ipairs = ipairs,
  next = next,
  pairs = pairs,
  rawequal = rawequal,
  rawget = rawget,
  rawset = rawset,
  select = select,
  tonumber = tonumber,
  tostring = tostring,
  type = type,
  unpack = unpack,
  pcall = function(...)
    return settled(gsub_depth, pcall(...))
  end,
  getmetatable = function(value)
    if type(value) == "table" then
      return getmetatable(value)
    end
  end,
  setmetatable = setmetatable,
  bit = sealed(picked(require("bit"), "tobit tohex bnot band bor bxor lshift rshift arshift rol ror bswap")),
  math = sealed(picked(math, "abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10 max min modf pi pow "
    .. "rad random sin sinh sqrt tan tanh")),
  string = sealed(safe_string),
  table = sealed(picked(table, "concat insert maxn remove sort")),
}

-- --- Traffic Server's functions: docs/snippets.md lists them, and why others are missing -------------------------------------------

local TEXT_MAX = 65536 -- bytes of a body, and of what is hashed or encoded
local VALUE_MAX = 8192 -- bytes of a header's value, and of a URI

local function plain_text(text)
  if type(text) == "number" then
    return tostring(text)
  end
  if type(text) ~= "string" then
    error("this is no text", 3)
  end
  return text
end

local function text_checked(text, what)
  if type(text) == "number" then
    text = tostring(text)
  end
  if type(text) ~= "string" then
    error(what .. " must be a text", 3)
  end
  if #text > VALUE_MAX then
    error(format("%s has at most %d bytes", what, VALUE_MAX), 3)
  end
  if find(text, "[%z\1-\8\10-\31\127]") then
    error(what .. " has a control byte", 3)
  end
  return text
end

local function write()
  running.n_writes = running.n_writes + 1
  if running.n_writes > WRITES_MAX then
    error(format("more than %d changes of one request", WRITES_MAX), 3)
  end
end

-- What frames messages on a connection that others use, too, is Traffic Server's business alone.
local FRAMING = {}
for name in gmatch("connection content-length keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
  .. "upgrade http2-settings", "%S+") do
  FRAMING[name] = true
end

local function field_checked(name)
  if type(name) ~= "string" or not find(name, "^[%w!#$%%&'*+.^_`|~-]+$") or #name > 256 then
    error("this is no name of a header", 3)
  end
  return name
end

local function header_of(message)
  local header = message.header
  local proxy = newproxy(true)
  local meta = getmetatable(proxy)
  meta.__metatable = false
  meta.__index = function(_, name)
    return header[field_checked(name)]
  end
  meta.__newindex = function(_, name, value)
    if FRAMING[real_string.lower(field_checked(name))] then
      error("header " .. name .. " cannot be changed", 2)
    end
    write()
    header[name] = value ~= nil and text_checked(value, "a header's value") or nil
  end
  return proxy
end

local function status_checked(status)
  write()
  status = tonumber(status)
  if not status or status < 200 or status > 599 or status % 1 ~= 0 then
    error("a status is a number from 200 to 599", 3)
  end
  return status
end

-- Of statuses without a name tslua.so would take the length of none.
local NAMED = {}
for status in gmatch("200 201 202 203 204 205 206 207 300 301 302 303 304 305 307 308 400 401 402 403 404 405 406 407 408 409 410 411 412 "
  .. "413 414 415 416 422 423 424 426 428 429 431 500 501 502 503 504 505 506 507 508 510 511", "%d+") do
  NAMED[tonumber(status)] = true
end

local function body_checked(body)
  if type(body) ~= "string" or #body > TEXT_MAX or find(body, "%z") then -- tslua.so copies it up to a NUL, and believes its length
    error(format("a body is a text without NUL, at most %d bytes", TEXT_MAX), 3)
  end
  return body
end

-- tslua.so may be of a version that lacks some.
local function calls(from, names)
  local content = {}
  for name in gmatch(names, "%S+") do
    local call = from and from[name]
    if type(call) == "function" then
      content[name] = call
    end
  end
  return content
end

local function message_of(name, names)
  local content = calls(real[name], names)
  content.header = header_of(real[name])
  return content
end

local client_request = message_of("client_request", "get_headers get_url get_pristine_url get_url_host get_url_port get_url_scheme get_uri "
  .. "get_uri_args get_uri_params get_method get_body_size get_version get_header_size get_ssl_reused get_ssl_cipher get_ssl_protocol "
  .. "get_ssl_curve")
-- The URL has the scheme of the rule's target by now; who asks means the client's.
client_request.get_url_scheme = function()
  return match(real.client_request.get_pristine_url() or "", "^(%a+)://")
end
client_request.client_addr = sealed(calls(real.client_request.client_addr, "get_ip get_port get_addr get_incoming_port"))
for _, name in ipairs({ "set_uri", "set_uri_args" }) do
  local set = real.client_request[name]
  client_request[name] = function(text)
    text = text_checked(text, "a URI")
    if find(text, "[ #]") then
      error("a URI has neither blanks nor #", 2)
    end
    write()
    return set(text)
  end
end

-- Without get_method: tslua.so of 9.2 aborts the process when there is no request to a pod yet.
local server_request = message_of("server_request", "get_headers get_header_size get_body_size get_uri get_uri_args get_version")

local server_response = message_of("server_response", "get_headers get_status get_version")

local client_response = message_of("client_response", "get_headers get_status get_version")
client_response.set_status = function(status)
  status = status_checked(status)
  if not NAMED[status] then
    error("a status with a name is needed here", 2)
  end
  return real.client_response.set_status(status)
end
client_response.set_error_resp = function(status, body)
  status = status_checked(status)
  if not NAMED[status] then
    error("a status with a name is needed here", 2)
  end
  if body == nil then
    return real.client_response.set_error_resp(status)
  end
  return real.client_response.set_error_resp(status, body_checked(body))
end

local http = calls(real.http, "get_cache_lookup_status is_websocket is_internal_request id transaction_count get_client_protocol_stack")
http.set_resp = function(status, body)
  status = status_checked(status)
  if body == nil then
    return real.http.set_resp(status)
  end
  return real.http.set_resp(status, body_checked(body))
end
http.skip_remapping_set = function() end -- of snippets written for the first controller that had them; the route is the Ingress's here

local function said(message)
  if type(message) == "number" then
    return tostring(message)
  end
  if type(message) ~= "string" then
    return "(a " .. type(message) .. ")"
  end
  return sub(message, 1, 1024)
end

local ctx = newproxy(true) -- of the transaction
do
  local meta = getmetatable(ctx)
  meta.__metatable = false
  meta.__index = function(_, name)
    return real.ctx[name]
  end
  meta.__newindex = function(_, name, value)
    real.ctx[name] = value
  end
end

local run -- function(request, call)

-- Hooks on the headers of this transaction.  A transform would see every byte of a body, and is not offered.
local HOOKS = {}
for name in gmatch("SEND_REQUEST_HDR READ_RESPONSE_HDR SEND_RESPONSE_HDR CACHE_LOOKUP_COMPLETE", "%S+") do
  local constant = "TS_LUA_HOOK_" .. name
  base[constant] = _G[constant]
  HOOKS[_G[constant]] = true
end
for name in gmatch("MISS HIT_STALE HIT_FRESH SKIPPED", "%S+") do
  base["TS_LUA_CACHE_LOOKUP_" .. name] = _G["TS_LUA_CACHE_LOOKUP_" .. name]
end

local function hook(which, call)
  if not HOOKS[which] then
    error("there are TS_LUA_HOOK_SEND_REQUEST_HDR, _READ_RESPONSE_HDR, _SEND_RESPONSE_HDR and _CACHE_LOOKUP_COMPLETE", 2)
  end
  if type(call) ~= "function" then
    error("a hook is a function", 2)
  end
  local request = running
  local is_set = request.hooks[which]
  request.hooks[which] = call
  if is_set then
    return -- once a kind: Traffic Server would call the last one as often as there were
  end
  real_hook(which, function()
    run(request, request.hooks[which])
    return 0 -- anything else would end the transaction, or hold it for ever
  end)
end

local api = calls(real, "now")
for name in gmatch("md5 sha1 sha256 hmac_md5 hmac_sha1 hmac_sha256 base64_encode base64_decode", "%S+") do
  local call = real[name]
  api[name] = call and function(first, second)
    if #plain_text(first) > TEXT_MAX or (second ~= nil and #plain_text(second) > TEXT_MAX) then
      error("a text is too long", 2)
    end
    if second ~= nil then
      return call(first, second)
    end
    return call(first)
  end
end
-- Not tslua.so's, which writes beyond its buffer when a text is long.
function api.escape_uri(text)
  return (gsub(plain_text(text), "[^%w._~-]", function(c)
    return format("%%%02X", byte(c))
  end))
end
function api.unescape_uri(text)
  return (gsub(plain_text(text), "%%(%x%x)", function(digits)
    return char(tonumber(digits, 16))
  end))
end
api.client_request = sealed(client_request)
api.server_request = sealed(server_request)
api.server_response = sealed(server_response)
api.client_response = sealed(client_response)
api.http = sealed(http)
api.ctx = ctx
api.hook = hook
api.error = function(message)
  tell(SAID, running.entry, said(message))
end
api.debug = function(message)
  real_debug("snippet of Ingress " .. running.entry.object .. ": " .. said(message))
end
base.ts = sealed(api)

-- --- versions of snippets, compiled ----------------------------------------------------------------------------------------------------

-- By object and content.  Two halves: one that is full becomes the older one, and what was older and not used since is forgotten.  So what is
-- in use stays, and at most 2 * COMPILED_MAX versions are there, however many there have been.
local compiled, older, n_compiled = {}, {}, 0

local function remember(key, entry)
  if n_compiled >= COMPILED_MAX then
    older, compiled, n_compiled = compiled, {}, 0
  end
  compiled[key] = entry
  n_compiled = n_compiled + 1
end

local function compile(object, text)
  local entry = { object = object, n_strikes = 0, struck_s = 0, suspended_s = 0, told_s = 0, n_told = 0 }
  -- "t": text alone, as bytecode can be made to do anything.
  local result, made = guard(function()
    local chunk, why = load(text, "=" .. object, "t", {})
    return chunk or { why }
  end)
  if result ~= RAN then
    report(result, object, text_of(made))
  elseif type(made) ~= "function" then
    report(SYNTAX, object, text_of(made[1]))
  else
    jit.off(made, true) -- and all functions in it: compiled code would call no hook of the budget's
    entry.chunk = made
  end
  return entry
end

local function entry_of(snippet)
  local object = ffi.string(snippet.object, snippet.object_len)
  local key = ffi.string(ffi.cast("const char *", snippet), 8) .. object
  local entry = compiled[key]
  if entry then
    return entry
  end
  entry = older[key]
  if not entry then
    entry = compile(object, ffi.string(snippet.text, snippet.text_len))
  end
  remember(key, entry)
  return entry
end

-- --- running ------------------------------------------------------------------------------------------------------------------------------

local function strike(entry)
  local now_s = real_now()
  if now_s - entry.struck_s > STRIKES_S or now_s < entry.struck_s then
    entry.struck_s, entry.n_strikes = now_s, 0
  end
  entry.n_strikes = entry.n_strikes + 1
  if entry.n_strikes >= STRIKES_MAX then
    entry.suspended_s = now_s + STRIKES_S
    report(SAID, entry.object, format("stopped %d times within %d s: not run for %d s", STRIKES_MAX, STRIKES_S, STRIKES_S))
  end
  collectgarbage("collect") -- what it has left behind is not for the next one to trip over
end

local function is_suspended(entry)
  if entry.suspended_s == 0 then
    return false
  end
  local now_s = real_now()
  if now_s < entry.suspended_s and now_s >= entry.struck_s then -- else the clock was set back
    return true
  end
  entry.suspended_s, entry.n_strikes = 0, 0
  return false
end

run = function(request, call)
  local entry = request.entry
  if is_suspended(entry) then
    report(SUSPENDED, entry.object, "")
    return
  end
  local before = running
  running = request
  gsub_depth = 0
  local result, problem = guard(call)
  running = before
  tell(result, entry, result == RAN and "" or text_of(problem))
  if result == STOPPED or result == MEMORY then
    strike(entry)
  end
end

local shared = { __index = base, __metatable = false }

local function remap()
  if core.atsk_snippet_take(real.http.id(), taken) ~= 0 then
    return 0
  end
  local entry = entry_of(taken)
  if not entry.chunk then
    return 0
  end
  -- Its globals are its own and this request's; hooks keep those that they were made with.
  run({ entry = entry, hooks = {}, n_writes = 0 }, setfenv(entry.chunk, setmetatable({}, shared)))
  return 0
end

package.loaded[NAME] = remap
do_remap = remap -- what tslua.so calls
