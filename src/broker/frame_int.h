/* frame_int.h - shared by the files of the broker's frame: shards, partitions, catalog, controller, connections. Handlers need broker_int.h only. */
#ifndef FRAME_INT_H
#define FRAME_INT_H

#include "broker_int.h"

/* ---- broker.c, shard.c ---- */

/* From a thread that is no shard's: an outsider has a way in, and one back to its own loop. */
struct outsider {
    struct broker *b;
    struct loop *loop;
    struct mailbox *back;        /* to loop */
    struct outbox to;            /* to shard 0 */
    void (*told)(struct outsider *o, struct call *c);
};
void outsider_init(struct outsider *o, struct broker *b, struct loop *l, void (*told)(struct outsider *o, struct call *c));
void outsider_fini(struct outsider *o);
void outsider_call(struct outsider *o, struct call *c);                  /* o's loop: to shard 0 */
void outsider_tell(struct shard *here, struct outsider *o, struct call *c); /* a shard's loop: told() comes on o's; once per outsider */

void broker_catalog_set(struct broker *b, struct catalog *cat); /* shard 0 */
struct catalog *broker_catalog(struct broker *b);               /* any thread: a reference */
void shard_comm_new(struct shard *s);
void shard_comm_free(struct shard *s);
struct mailbox *shard_inbox(struct shard *s);     /* for tests: to fill it */
void shard_post(struct shard *to, struct call *c); /* any thread, while the mailbox cannot be full: start and stop */
extern const struct module *const modules[];
extern const uint32_t modules_n;

/* The end of a broker, see README.md: every shard reports each step to shard 0, which begins the next one. */
void shard_stop_step(struct shard *s);  /* something that the stop may wait for has ended: looks whether all has */

/* ---- parts.c ---- */

struct change_pair {
    struct topic *before, *after; /* references; NULL: made, deleted */
};
/* A new catalog on its way to one shard. */
struct news {
    struct call call;
    struct shard *shard;
    struct round *round;
    uint32_t loads_left;          /* partitions of it that are not loaded yet, and one while it is being read */
};
/* Changes that are made durable together (controller.c). */
struct round {
    struct work work;
    struct broker *b;
    struct list changes;          /* struct topic_change */
    struct catalog *next;         /* with all of them */
    struct change_pair *pairs;    /* what has changed, in order */
    uint32_t pairs_n, pairs_cap;
    bool defaults_changed;        /* though no topic is there */
    struct buf text;              /* the file's new content */
    char *path;
    enum err err;
    struct news news[SHARDS_MAX];
    uint32_t news_left;           /* shards that have not got it all */
};
void news_arrived(struct shard *here, struct call *c);
void parts_init(struct shard *s);
void parts_begin(struct shard *s);    /* the first catalog: loads all that this shard owns */
void parts_stop(struct shard *s);     /* nothing more is loaded */
bool parts_at_rest(const struct shard *s);
void parts_fini(struct shard *s);
void parts_remove_orphans(struct broker *b); /* folders of topics that are no more; before the shards run */
void part_folder(const struct topic *t, int32_t partition, char out[PART_NAME_MAX + 1]);

/* ---- catalog.c, topic_settings.c ---- */

struct catalog *catalog_new(void);
struct catalog *catalog_copy(const struct catalog *c);
void catalog_put(struct catalog *c, struct topic *t);     /* takes the reference; replaces one of that name */
void catalog_remove(struct catalog *c, struct topic *t);
struct topic *topic_new(struct slice name, struct kafka_uuid id, int32_t partitions);
struct topic *topic_changed(const struct topic *t, int32_t partitions); /* a copy; its settings are copied, too */
bool topic_is_internal(struct slice name);
enum err uuid_parse(struct slice text, struct kafka_uuid *out) WARN_UNUSED;
struct kafka_uuid uuid_random(void);
struct slice topic_name(const struct topic *t);

enum setting_type { SETTING_BOOL = 1, SETTING_STRING = 2, SETTING_INT = 3, SETTING_SHORT = 4, SETTING_LONG = 5, SETTING_DOUBLE = 6, SETTING_LIST = 7 }; /* as DescribeConfigs numbers them */
enum { SOURCE_TOPIC = 1, SOURCE_BROKER = 2, SOURCE_BROKERS = 3, SOURCE_STATIC = 4, SOURCE_DEFAULT = 5 }; /* where a value comes from, as DescribeConfigs numbers it */
struct setting_info {
    const char *name, *preset, *words, *doc;
    enum setting_type type;
    int64_t least, greatest;
};
extern const struct setting_info topic_setting_infos[TOPIC_SETTINGS];
int setting_find(struct slice name);                      /* -1: none */
/* False: why says what is wrong with the value, naming it (mem_free()). */
bool setting_check(enum topic_setting i, struct slice value, char **why);
void settings_init(struct topic_settings *s);
void settings_fini(struct topic_settings *s);
void settings_set(struct topic_settings *s, enum topic_setting i, struct slice value); /* checked before; p NULL: the default */
void settings_read(struct topic_settings *s); /* from the texts to the rest */
/* After that: whether they go together (LogConfig.validateValues of Kafka: whatever the cleanup policy is). False: why not. */
bool settings_fit(const struct topic_settings *s, char **why);
/* The same of what was there before this was asked of all topics, or changes by its defaults alone: while it is not compacted it may stay as it is, when it
 * did not fit before either. before: NULL: it is only now read. */
bool settings_fit_as_before(const struct topic_settings *s, const struct topic_settings *before, char **why);
const char *settings_value(const struct topic_settings *s, enum topic_setting i);
int8_t settings_source(const struct topic_settings *s, enum topic_setting i); /* of that value: SOURCE_x */
void settings_defaults(struct topic_settings *s, struct broker_defaults *d); /* takes a reference; NULL: none */

/* The defaults of topics that were changed while the broker runs (KIP-226), by the broker's names for them: log.retention.ms is retention.ms of topics that don't set it.
 * Immutable once it is in a catalog. */
enum defaults_layer { DEFAULTS_BROKERS, DEFAULTS_BROKER, DEFAULTS_LAYERS }; /* of all brokers; of this one, which come first */
struct broker_defaults {
    uint32_t refs;              /* atomic */
    struct topic_settings layer[DEFAULTS_LAYERS]; /* what was set, as texts */
};
struct broker_defaults *defaults_copy(const struct broker_defaults *d);  /* NULL: of none */
struct broker_defaults *defaults_ref(struct broker_defaults *d);         /* NULL-safe, as the next */
void defaults_unref(struct broker_defaults *d);
/* The broker's name for a topic's default; NULL: it has none. */
const char *default_name(enum topic_setting i);
int default_find(struct slice name);                      /* -1: none, or nothing that can be changed while the broker runs */

/* ---- controller.c ---- */

enum err controller_open(struct broker *b, struct buf *why) WARN_UNUSED; /* reads the files; b->cluster_id, b->catalog */
void controller_free(struct broker *b);
bool controller_at_rest(const struct broker *b); /* shard 0 */
void round_shard_done(struct shard *here, struct news *n); /* this shard has all of it */

/* ---- conn.c, request.c ---- */

#define CONN_REQS_MAX 64                        /* requests of one connection under way */
#define CONN_REQS_BYTES_MAX (64u << 20)         /* and their bytes */
#define FRAME_CLASSES 32
struct conn_pool {
    struct shard *shard;
    struct list free_reqs;                      /* struct breq, with an arena of one chunk */
    struct list free_answers;                   /* struct answer */
    struct frame_kept *frames[FRAME_CLASSES];   /* free buffers of 2^i bytes */
    struct list starved;                        /* struct bconn that wait for memory, the longest first */
    struct task wake;                           /* memory was given back: some of them may go on */
    struct timer sweep;
    uint64_t frames_kept_bytes;                 /* of all free buffers, */
    uint64_t frames_low_bytes;                  /* and the least that they were since the last sweep: so much nobody needs */
    uint64_t memory;                            /* bytes of frames and answers under way */
    uint64_t said_s;                            /* log lines about peers: the second of the last ones, */
    uint32_t said_n;                            /* and how many in it */
    uint32_t free_reqs_n, free_answers_n;
    uint32_t conns_n, reqs_n;                   /* connections not released; requests that exist */
};
void conns_init(struct shard *s);
void conns_stop(struct shard *s);
bool conns_at_rest(const struct shard *s);
void conns_fini(struct shard *s);
void conn_close(struct bconn *c);
void conn_last(struct bconn *c);                /* what is in reqs is answered, then the connection ends */
void conn_go(struct bconn *c);                  /* sends and begins what can be, reads on when it may */
void conn_rest(struct bconn *c, uint32_t ms);   /* throttled: reads nothing for so long */
/* A warning about this peer, which it names; at most so many a second. */
void conn_say(struct bconn *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

struct breq *breq_new(struct bconn *c);
void breq_free(struct breq *r);
bool breq_frame(struct breq *r, size_t n) WARN_UNUSED; /* a buffer for a frame of n bytes; false: no memory */
void frames_trim(struct conn_pool *p);                 /* frees what was not needed since the last time */
bool memory_for(const struct conn_pool *p, size_t n); /* whether a frame of so many bytes may be begun */
void memory_add(struct conn_pool *p, uint64_t n);
void memory_sub(struct conn_pool *p, uint64_t n);
void request_arrived(struct bconn *c, struct breq *r); /* its frame is whole: it stands in c->reqs afterwards, or c is closed */
void requests_begin(struct bconn *c);           /* those that may */
bool answers_send(struct bconn *c);             /* those whose turn it is; false: there was none */
void answer_go_on(struct bconn *c);             /* the peer has taken what was written */
uint64_t answer_moved(const struct bconn *c);   /* bytes of its file that are sent: to see progress */
void answer_drop(struct bconn *c);              /* the connection ends within it */
void requests_drop(struct bconn *c);            /* the connection ends */
void requests_cancel(struct bconn *c);          /* the broker stops: long polls are answered */
void requests_fini(struct conn_pool *p);

/* ---- api.c ---- */

extern const int16_t api_versions_key, sasl_handshake_key, sasl_authenticate_key;
extern const struct api api_none;               /* of requests that are none, or not served */
void apis_init(void);                           /* once, before the first connection */

/* ---- metrics.c ---- */

#define API_KEYS_MAX 128
#define LATENCY_BUCKETS 11                      /* up to 16 microseconds, and four times as much each, to 17 s */
struct api_counters {
    counter requests, errors, us;
    counter latency[LATENCY_BUCKETS + 1];       /* the last: above all bounds */
};
struct broker_counters {
    struct api_counters api[API_KEYS_MAX];
    counter connections, accepted, refused, closed_idle, closed_slow; /* connections: now */
    counter bytes_in, bytes_out;
    counter malformed, unserved, too_large, unspoken; /* unspoken: lines about peers that were not written, being too many */
    counter memory, starved, waited;            /* bytes under way; how often a connection waited for memory; for its own earlier requests */
    counter parts, parts_ready, parts_offline; /* now; what is neither is being loaded */
    counter auto_created;
};
void count_answer(struct shard *s, const struct breq *r);

#endif
