/* framer.h - reads a known pattern as frames, the long ones through stream_into(): for rt's tests, plain and TLS. Tests only. */
#ifndef FRAMER_H
#define FRAMER_H

#include "rt_int.h"

/* Takes the place of a stream's owner for data(); the owner gets the rest, and must not switch reading. */
struct framer {
    struct stream *s;
    struct stream_ops ops;       /* the owner's, with another data() */
    char (*pattern)(uint64_t at);
    uint64_t at;                 /* bytes checked */
    uint64_t frame;              /* its number, which tells its length */
    size_t left;                 /* of the frame in work */
    char *mem;                   /* of stream_into() in work, mem_n bytes, with a guard behind */
    size_t mem_n;
    uint32_t fills, datas;
    uint64_t pauses;             /* every so many fills reading goes off for a while; 0: never */
    uint64_t chains;             /* every so many fills the next frame is read whole by stream_into(); 0: never */
    uint64_t close_at;           /* the fill that closes the stream; 0: none */
    struct timer pause;
    bool bad;
};
void framer_init(struct framer *f, struct stream *s, char (*pattern)(uint64_t at));
void framer_fini(struct framer *f); /* after stream_close() */

#endif
