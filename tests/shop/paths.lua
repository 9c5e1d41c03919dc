-- wrk: the paths of the shop in turn, so that every service has its share of the load.
local paths = { "/", "/api/products", "/api/orders" }
local n = 0

function request()
  n = n + 1
  return wrk.format("GET", paths[n % #paths + 1])
end
