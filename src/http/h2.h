/* h2.h - what http_srv.c and http_cli.c call when a connection speaks HTTP/2. Private to the room.
 *
 * Both ends sit on the stream inside the http_srv or http_cli: they put their own ops on it and from then on get its events;
 * the HTTP/1 part of the struct is unused. They call the owner's ops (http_srv_ops, http_cli_ops) themselves.
 */
#ifndef H2_H
#define H2_H

#include "http.h"

/* ---- the server's end: h2_srv.c ---- */
/* The connection speaks HTTP/2 (ALPN, or its first bytes are the preface, whole or in part): takes the stream over and sends
 * our SETTINGS. p: bytes that were read already. c->h2 is set. */
void h2_srv_start(struct http_srv *c, const char *p, size_t n);
void h2_srv_last(struct http_srv *c);
bool h2_srv_idle(const struct http_srv *c);
void h2_srv_close(struct http_srv *c);  /* stream_close() included; released() of the http_srv_ops follows; frees c->h2 then */
void h2_req_reading(struct http_req *r, bool on);
int h2_req_trailers(struct http_req *r, struct h1_field *fields, int max);
void h2_req_interim(struct http_req *r, struct head_out *o);
size_t h2_req_answer(struct http_req *r, struct head_out *o, enum h1_framing framing, uint64_t length, struct pieces body, bool end);
size_t h2_req_send(struct http_req *r, struct pieces body);
void h2_req_end(struct http_req *r, struct slice trailers);
void h2_req_last(struct http_req *r);
void h2_req_cut(struct http_req *r);
void h2_req_refuse(struct http_req *r);

/* ---- the client's end: h2_cli.c ---- */
/* The connection stands and speaks HTTP/2: takes the stream over. c->h2 is set. Calls may be begun before (from
 * http_cli_connect() on with HTTP_2): then it is started at once and its bytes wait in the stream. */
void h2_cli_start(struct http_cli *c);
uint32_t h2_cli_room(const struct http_cli *c);
uint32_t h2_cli_streams_told(const struct http_cli *cli);
uint32_t h2_cli_calls(const struct http_cli *c);
size_t h2_cli_request(struct http_cli *c, struct http_call *k, enum h1_method method, struct slice head, enum h1_framing framing, struct pieces body, bool end);
size_t h2_call_send(struct http_call *k, struct pieces body);
size_t h2_call_queued(const struct http_call *k);
void h2_call_end(struct http_call *k, struct slice trailers);
void h2_call_reading(struct http_call *k, bool on);
int h2_call_trailers(struct http_call *k, struct h1_field *fields, int max);
void h2_call_cancel(struct http_call *k);
void h2_cli_close(struct http_cli *c);

#endif
