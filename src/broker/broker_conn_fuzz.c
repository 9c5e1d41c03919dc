/* broker_conn_fuzz.c - any bytes, cut in any way, into a connection of a broker on the simulator. The input:
 *
 *     byte 0   how the connection and the client behave (bits below)
 *     byte 1   seed of the simulated network
 *     then     blocks: one byte n; n 0 is a pause, 255 ends the client's sending; n below 200: the next n bytes are sent as they are;
 *              else a request: key, version, then (n - 200) bytes of body behind a header that fits
 *
 * What must hold: the broker lives, another connection is still served afterwards, memory under way is given back, stopping comes to its end, and nothing leaks.
 */
#include "broker_world_test.h"
#include "frame_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { SASL = 1, SPLIT = 2, SLOW_READER = 4, TWO_SHARDS = 8, TIGHT = 16, WITH_TOPIC = 32 };

static uint8_t manner;

static void tune(struct broker_conf *c)
{
    c->request_bytes_max = 65536;
    c->partitions = 2;
    c->offsets_partitions = c->txn_partitions = 2;
    if (manner & TIGHT)
        c->memory_bytes = 8192;
}

static void send_request(struct client *c, const uint8_t *p, size_t n)
{
    static int32_t id;
    struct buf b = {0};
    struct kafka_writer w;
    struct kafka_request_header h = {.api_key = n ? p[0] % 80 : 0, .api_version = n > 1 ? p[1] % 14 : 0, .correlation_id = ++id, .client_id = SLICE("fuzz")};
    kafka_writer_init(&w, &b);
    struct kafka_frame frame = kafka_frame_begin(&w);
    kafka_request_header_write(&w, &h);
    if (n > 2)
        buf_add(&b, p + 2, n - 2);
    kafka_frame_end(&w, frame);
    client_bytes(c, b.p, b.n);
    kafka_writer_fini(&w);
    buf_free(&b);
}

static void play(struct client *c, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n && !client_closed(c);) {
        uint8_t block = p[i++];
        size_t some = MIN((size_t)(block < 200 ? block : block - 200), n - i);
        if (block == 0) {
            world_sleep(3);
            continue;
        }
        if (block == 255) {
            client_end_sending(c);
            break;
        }
        if (block < 200)
            client_bytes(c, p + i, some);
        else
            send_request(c, p + i, some);
        i += some;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct kafka_api_versions_req req;
    if (n < 2)
        return 0;
    manner = data[0];
    struct world_conf conf = {.seed = 1 + data[1], .shards = manner & TWO_SHARDS ? 2 : 1, .tune = tune, .sasl = manner & SASL, .quiet = true};
    if (manner & SPLIT)
        conf.net = (struct sim_conf){.split_pct = 70, .short_write_pct = 70};
    world_start(&conf);
    if (manner & WITH_TOPIC)
        world_topic("t", 3, NULL);
    struct client *c = client_new(0);
    client_any_answers(c);
    if (manner & SLOW_READER)
        client_reading(c, false);
    play(c, data + 2, n - 2);
    world_sleep(50);
    client_free(c);
    world_sleep(50);
    kafka_api_versions_req_init(&req);
    struct client *other = client_new(0);
    (void)client_ask(other, KEY_API_VERSIONS, 0, &req);
    world_sleep(10);
    world_stop();
    return 0;
}
