#include "h2.h"
#define W __attribute__((weak))
W void h2_srv_start(struct http_srv *c, const char *p, size_t n) { (void)p; (void)n; stream_close(&c->h1.s); }
W void h2_srv_last(struct http_srv *c) { (void)c; }
W bool h2_srv_idle(const struct http_srv *c) { (void)c; return true; }
W void h2_srv_close(struct http_srv *c) { (void)c; }
W void h2_req_reading(struct http_req *r, bool on) { (void)r; (void)on; }
W int h2_req_trailers(struct http_req *r, struct h1_field *f, int m) { (void)r; (void)f; (void)m; return 0; }
W void h2_req_interim(struct http_req *r, struct head_out *o) { (void)r; (void)o; }
W size_t h2_req_answer(struct http_req *r, struct head_out *o, enum h1_framing f, uint64_t l, struct pieces b, bool e) { (void)r; (void)o; (void)f; (void)l; (void)b; (void)e; return 0; }
W size_t h2_req_send(struct http_req *r, struct pieces b) { (void)r; (void)b; return 0; }
W void h2_req_end(struct http_req *r, struct slice t) { (void)r; (void)t; }
W void h2_req_last(struct http_req *r) { (void)r; }
W void h2_req_cut(struct http_req *r) { (void)r; }
W void h2_cli_start(struct http_cli *c) { (void)c; }
W uint32_t h2_cli_room(const struct http_cli *c) { (void)c; return 0; }
W uint32_t h2_cli_calls(const struct http_cli *c) { (void)c; return 0; }
W size_t h2_cli_request(struct http_cli *c, struct http_call *k, enum h1_method m, struct slice h, enum h1_framing f, struct pieces b, bool e) { (void)c; (void)k; (void)m; (void)h; (void)f; (void)b; (void)e; return 0; }
W size_t h2_call_send(struct http_call *k, struct pieces b) { (void)k; (void)b; return 0; }
W void h2_call_end(struct http_call *k, struct slice t) { (void)k; (void)t; }
W void h2_call_reading(struct http_call *k, bool on) { (void)k; (void)on; }
W int h2_call_trailers(struct http_call *k, struct h1_field *f, int m) { (void)k; (void)f; (void)m; return 0; }
W void h2_call_cancel(struct http_call *k) { (void)k; }
W void h2_cli_close(struct http_cli *c) { (void)c; }
