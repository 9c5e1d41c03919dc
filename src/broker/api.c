/* api.c - which APIs are served, in which versions (api.def), and ApiVersions, which tells them.
 *
 * Versions. Minimums are those of Kafka 4.3: a client that finds its own below them is told so by ApiVersions. One is told and not served: Produce 0 to 2,
 * because librdkafka up to 2.11 takes gzip, snappy and lz4 for unsupported when it does not see version 0 (KAFKA-18659; Kafka 4 tells the same).
 *
 * ApiVersions (KIP-511). Its answer's header never has tags, since the client does not know yet what this broker speaks. A version that is not served is
 * answered in version 0 with UNSUPPORTED_VERSION and the range of ApiVersions alone, from which the client steps down.
 */
#include "frame_int.h"

const int16_t api_versions_key = 18, sasl_handshake_key = 17, sasl_authenticate_key = 36;

static struct api apis[] = {
#define X(key_, name_, min_, max_, served_, parallel_, serve_) {.key = key_, .min = min_, .max = max_, .served_min = served_, .parallel = parallel_, .serve = serve_},
#include "api.def"
#undef X
};
static const struct kafka_api none_wire = {.key = -1, .name = "unknown"};
const struct api api_none = {.key = -1, .wire = &none_wire};
static uint8_t api_index[API_KEYS_MAX]; /* of each key, counted from 1 */

void apis_init(void)
{
    for (size_t i = 0; i < COUNT_OF(apis); i++) {
        apis[i].wire = kafka_api_find(apis[i].key);
        MUST(i == 0 || apis[i].key > apis[i - 1].key);
        MUST(apis[i].wire && apis[i].served_min >= apis[i].wire->first && apis[i].max <= apis[i].wire->last && apis[i].key < API_KEYS_MAX);
        api_index[apis[i].key] = (uint8_t)(i + 1);
    }
}

const struct api *api_find(int16_t key) { return key >= 0 && key < API_KEYS_MAX && api_index[key] ? &apis[api_index[key] - 1] : NULL; }

const struct api *api_at(uint32_t i) { return i < COUNT_OF(apis) ? &apis[i] : NULL; }

/* [a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])? (KIP-511) */
static bool software_ok(struct slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (i == 0 || i == s.n - 1 || (c != '-' && c != '.')))
            return false;
    }
    return s.n > 0;
}

void api_versions(struct breq *r)
{
    const struct kafka_api_versions_req *req = r->req;
    struct kafka_api_versions_resp *resp = BREQ_NEW(r, struct kafka_api_versions_resp);
    kafka_api_versions_resp_init(resp);
    r->resp = resp;
    resp->api_keys = BREQ_ARRAY(r, struct kafka_api_versions_resp_api_version, COUNT_OF(apis));
    if (r->error == KAFKA_NONE && r->version >= 3 && !(software_ok(req->client_software_name) && software_ok(req->client_software_version)))
        r->error = KAFKA_INVALID_REQUEST;
    resp->error_code = r->error;
    for (size_t i = 0; i < COUNT_OF(apis); i++) {
        if (r->error == KAFKA_INVALID_REQUEST || (r->error && apis[i].key != api_versions_key))
            continue;
        struct kafka_api_versions_resp_api_version *v = &resp->api_keys[resp->api_keys_n++];
        kafka_api_versions_resp_api_version_init(v);
        v->api_key = apis[i].key;
        v->min_version = apis[i].min;
        v->max_version = apis[i].max;
    }
    breq_answer(r, r->home);
}
