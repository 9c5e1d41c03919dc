#!/bin/bash
# nginx: NGINX_BIN picks another binary (default: the distribution's)
# shellcheck source-path=SCRIPTDIR source=_lib.sh disable=SC2016 # $http_x_key is nginx's
. "$(dirname "$0")/_lib.sh"
B=${NGINX_BIN:-$(command -v nginx || echo /usr/sbin/nginx)}
ver=$("$B" -v 2>&1 | sed 's,.*nginx/,,'); minor=$(echo "$ver" | cut -d. -f2)
case $1 in
caps) echo http tls h2 grpc tcp cache limit deny; exit;;
version) echo "nginx $ver"; exit;;
bin) echo "$B"; exit;;
reload) kill -HUP "$PID"; exit;;
start) ;;
*) die "usage: $0 caps|version|bin|start|reload";;
esac
mkdir -p "$RUN"/{body,proxy,fcgi,uwsgi,scgi,cache}
L="127.0.0.1:$PORT backlog=4096"; EXTRA=; LOC="proxy_pass http://up;"; HTTPX=; UP="127.0.0.1:$OPORT"; LOAD=
if [ "$MODE" = tcp ]; then
  "$B" -V 2>&1 | grep -q 'with-stream=dynamic' && LOAD="load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
  cat > "$RUN/nginx.conf" <<C
$LOAD
worker_processes 1; daemon off; pid $RUN/nginx.pid; error_log $RUN/error.log crit; worker_rlimit_nofile 20000;
events { worker_connections 9000; multi_accept on; }
stream { access_log off; tcp_nodelay on; proxy_buffer_size 64k; ${HALF_CLOSE:+proxy_half_close on;}
  server { listen $L; proxy_pass 127.0.0.1:$OPORT; } }
C
  exec "$B" -p "$RUN" -e "$RUN/error.log" -c "$RUN/nginx.conf"
fi
case $MODE in
tls) L="$L ssl"; EXTRA="ssl_certificate $CERT; ssl_certificate_key $KEY; ssl_protocols TLSv1.3; ssl_session_cache shared:s:20m; ssl_session_timeout 1h; ssl_session_tickets on; ssl_buffer_size 16k; ssl_early_data off;";;
h2|grpc) if [ "$minor" -ge 25 ]; then EXTRA="http2 on;"; else L="$L http2"; fi; HTTPX="http2_max_concurrent_streams 256;";;
cache) HTTPX="proxy_cache_path ${CACHE_DIR:-/dev/shm}/ngx-cache-$PORT levels=1:2 keys_zone=c:16m max_size=256m inactive=1h use_temp_path=off; open_file_cache max=10000 inactive=60s; open_file_cache_valid 60s; sendfile on;"
       LOC="proxy_cache c; proxy_cache_valid 200 1h; $LOC";;
limit) HTTPX='limit_req_zone $http_x_key zone=z:64m rate=1000000r/s; limit_req_status 429;'; LOC="limit_req zone=z burst=1000000 nodelay; $LOC";;
deny) HTTPX='limit_req_zone $http_x_key zone=z:64m rate=1r/m; limit_req_status 429; limit_req_log_level info;'; LOC="limit_req zone=z; $LOC";;
esac
PASS='proxy_http_version 1.1; proxy_set_header Connection "";'
[ "$MODE" = grpc ] && { UP="127.0.0.1:$O2PORT"; LOC="grpc_pass grpc://up;"; PASS=; }
cat > "$RUN/nginx.conf" <<C
worker_processes 1; daemon off; pid $RUN/nginx.pid; error_log $RUN/error.log crit; worker_rlimit_nofile 20000;
events { worker_connections 16384; multi_accept on; }
http {
  access_log off; server_tokens off; tcp_nodelay on; etag off;
  keepalive_timeout 600s; keepalive_requests 1000000000; reset_timedout_connection on;
  client_body_temp_path $RUN/body; proxy_temp_path $RUN/proxy; fastcgi_temp_path $RUN/fcgi; uwsgi_temp_path $RUN/uwsgi; scgi_temp_path $RUN/scgi;
  client_body_buffer_size 64k; proxy_buffer_size ${NGX_BUF:-16k}; proxy_buffers ${NGX_BUFS:-8 64k}; proxy_busy_buffers_size ${NGX_BUSY:-256k}; proxy_max_temp_file_size 0;
  $HTTPX $NGX_EXTRA
  upstream up { server $UP max_fails=0; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 600s; }
  server { listen $L; $EXTRA
    location / { $PASS $LOC } }
}
C
exec "$B" -p "$RUN" -e "$RUN/error.log" -c "$RUN/nginx.conf"
