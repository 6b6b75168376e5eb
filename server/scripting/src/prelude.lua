-- What scripts see: the globals, made read-only, and what runs a script under a handler of errors.
--
-- Stock Lua 5.1 knows no read-only tables. A protected table is an empty one in front of the real
-- one (`backing`), which is out of reach: reading goes through `__index`, writing is refused, and the
-- functions that look past metatables are replaced by ones that know of it.

local native, kind = ...
local assert, error, type, tostring, select = assert, error, type, tostring, select
local next, rawget, rawset, pairs = next, rawget, rawset, pairs
local pcall, xpcall = pcall, xpcall
local setmetatable, getmetatable = setmetatable, getmetatable
local loadstring, collectgarbage = loadstring, collectgarbage
local insert, concat = table.insert, table.concat
local byte, find, gsub = string.byte, string.find, string.gsub
local resume, wrap = coroutine.resume, coroutine.wrap
local repair, place, beat, killed = native.repair, native.place, native.beat, native.killed

local READONLY = 'Attempt to modify a readonly table'

-- Protected table -> what is behind it; and the metatable that scripts may see of it.
local backing = {}
local visible = {}

local function refuse()
  error(READONLY, 2)
end

local function protect(real, metatable)
  local front = {}
  backing[front] = real
  setmetatable(front, { __index = real, __newindex = refuse })
  if metatable then
    visible[front] = protect(metatable)
  end
  return front
end

-- Errors of functions written in Rust arrive as userdata that stands for a text or a table; those of
-- what is wrapped here may say that they happened here.
local function plain(problem)
  local kind = type(problem)
  if kind == 'userdata' then
    return repair(problem)
  end
  if kind == 'string' and find(problem, 'prelude:', 1, true) == 1 then
    return (gsub(problem, '^prelude:%d+: ', ''))
  end
  return problem
end

local function caught(ok, ...)
  if ok then
    return true, ...
  end
  local problem = plain((...))
  if type(problem) == 'table' then
    local text = problem.err
    if type(text) == 'string' or type(text) == 'number' then
      problem = text
    end
  end
  return false, problem
end

local function resumed(ok, ...)
  if ok then
    return true, ...
  end
  return false, plain((...))
end

local base = {
  assert = assert, error = error, gcinfo = gcinfo, ipairs = ipairs, rawequal = rawequal,
  select = select, tonumber = tonumber, tostring = tostring, type = type, unpack = unpack,
  _VERSION = _VERSION,
}

function base.pcall(...)
  return caught(pcall(...))
end

function base.xpcall(...)
  if select('#', ...) < 2 then
    error("bad argument #2 to 'xpcall' (value expected)", 2)
  end
  local body, handler = ...
  return xpcall(body, function(problem)
    problem = plain(problem)
    -- No hook watches what handles the error of a hook: a script's end is no error to handle.
    if killed() then
      return problem
    end
    return handler(problem)
  end)
end

local function not_a_table(name, ...)
  local given = select('#', ...) == 0 and 'no value' or type((...))
  error("bad argument #1 to '" .. name .. "' (table expected, got " .. given .. ')', 3)
end

function base.next(...)
  local list, key = ...
  if type(list) ~= 'table' then
    not_a_table('next', ...)
  end
  return next(backing[list] or list, key)
end

function base.pairs(...)
  local list = ...
  if type(list) ~= 'table' then
    not_a_table('pairs', ...)
  end
  local real = backing[list]
  if real then
    return function(_, key)
      return next(real, key)
    end, list, nil
  end
  return next, list, nil
end

function base.rawget(list, key)
  return rawget(backing[list] or list, key)
end

function base.rawset(list, key, value)
  if backing[list] then
    error(READONLY, 0)
  end
  return rawset(list, key, value)
end

function base.setmetatable(list, metatable)
  if backing[list] then
    error(READONLY, 0)
  end
  return setmetatable(list, metatable)
end

local text_metatable = getmetatable('')
local shown_text_metatable

function base.getmetatable(value)
  if type(value) == 'table' and backing[value] then
    return visible[value]
  end
  local metatable = getmetatable(value)
  if metatable == text_metatable then
    return shown_text_metatable
  end
  return metatable
end

-- Bytecode could corrupt memory: what begins like it is source that does not compile.
local function compile(text, name)
  if byte(text, 1) == 27 then
    return nil, '[string "' .. (name or '?') .. '"]:1: unexpected symbol near \'char(27)\''
  end
  return loadstring(text, name)
end

function base.loadstring(text, name)
  if type(text) == 'number' then
    text = tostring(text)
  end
  if type(text) ~= 'string' then
    error("bad argument #1 to 'loadstring' (string expected, got "
      .. (text == nil and 'no value' or type(text)) .. ')', 2)
  end
  if name ~= nil then
    return compile(text, tostring(name))
  end
  return compile(text, text)
end

function base.load(reader, name)
  if type(reader) ~= 'function' then
    error("bad argument #1 to 'load' (function expected, got " .. type(reader) .. ')', 2)
  end
  local pieces = {}
  while true do
    local piece = reader()
    if piece == nil or piece == '' then
      break
    end
    if type(piece) ~= 'string' then
      return nil, 'reader function must return a string'
    end
    pieces[#pieces + 1] = piece
  end
  return compile(concat(pieces), name == nil and '=(load)' or tostring(name))
end

-- The collector's pace is the server's affair.
function base.collectgarbage(option, argument)
  option = option or 'collect'
  if option == 'count' or option == 'collect' or option == 'step' then
    return collectgarbage(option, argument)
  end
  if option == 'stop' or option == 'restart' or option == 'setpause' or option == 'setstepmul' then
    return 0
  end
  error("bad argument #1 to 'collectgarbage' (invalid option '" .. tostring(option) .. "')", 2)
end

local tables = {}
for name, value in pairs(table) do
  tables[name] = value
end
function tables.insert(list, ...)
  if backing[list] then
    error(READONLY, 0)
  end
  if type(list) ~= 'table' then
    error("bad argument #1 to 'insert' (table expected, got "
      .. (list == nil and 'no value' or type(list)) .. ')', 2)
  end
  return insert(list, ...)
end

local coroutines = {}
for name, value in pairs(coroutine) do
  coroutines[name] = value
end
function coroutines.resume(...)
  beat()
  return resumed(resume(...))
end
function coroutines.wrap(body)
  local inner = wrap(body)
  return function(...)
    beat()
    return inner(...)
  end
end

local maths = {}
for name, value in pairs(math) do
  maths[name] = value
end
maths.random, maths.randomseed = native.random, native.randomseed

local strings = {}
for name, value in pairs(string) do
  strings[name] = value
end
for name, value in pairs(native.string) do
  strings[name] = value
end
text_metatable.__index = strings

-- The table behind the globals of this interpreter.
local globals = {}
for name, value in pairs(base) do
  globals[name] = value
end
globals.string = protect(strings)
globals.table = protect(tables)
globals.coroutine = protect(coroutines)
globals.math = protect(maths)
globals.os = protect({ clock = os.clock })
globals.cjson = protect(native.cjson)
globals.cmsgpack = protect(native.cmsgpack)
globals.struct = protect(native.struct)
globals.bit = protect(native.bit)
globals.redis = protect(native.redis)
shown_text_metatable = protect({ __index = globals.string })

local function missing(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end

local front = protect(globals, { __index = missing })
globals._G = front
setmetatable(globals, { __index = missing })

-- While a library is loaded this is all it sees: no commands, but `register_function`. Its functions
-- see the rest when they are called.
local loading = {}
local library_api = native.library
setmetatable(library_api, { __index = missing })
loading.redis = protect(library_api, { __index = missing })
setmetatable(loading, { __index = missing })
local front_metatable = getmetatable(front)

-- The handler of errors that nothing in the script caught.
local function handler(problem)
  problem = plain(problem)
  if type(problem) ~= 'table' then
    problem = { err = 'ERR ' .. tostring(problem) }
  elseif backing[problem] then
    problem = { err = 'ERR unknown error' }
  end
  -- What is left is read without metatables and conversions.
  local text = problem.err
  if type(text) == 'number' then
    problem.err = tostring(text)
  end
  local source, line = place()
  if source then
    problem.source, problem.line = source, line
  end
  return problem
end
if kind == 'eval' then
  globals.__redis__err__handler = handler
end

local drivers = { globals = front, real = globals, handler = handler }

-- Runs a library's source so that it registers its functions.
function drivers.load(chunk)
  front_metatable.__index, backing[front] = loading, loading
  local ok, problem = pcall(chunk)
  front_metatable.__index, backing[front] = globals, globals
  if ok then
    return true
  end
  problem = plain(problem)
  if type(problem) == 'table' and not backing[problem] and type(problem.err) == 'string' then
    return false, problem.err
  end
  if type(problem) == 'table' then
    return false, 'ERR unknown error'
  end
  return false, 'ERR ' .. tostring(problem)
end

-- Whatever a load left behind.
function drivers.restore()
  front_metatable.__index, backing[front] = globals, globals
end

return drivers
