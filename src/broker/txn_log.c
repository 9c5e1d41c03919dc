/* txn_log.c - __transaction_state: one record per transition of a transactional id, in Kafka's own format, and reading them all at the start.
 *
 *     key    int16 0, TransactionLogKey     the transactional id
 *     value  int16 1, TransactionLogValue   state, producer id and epoch, partitions; null: the id is forgotten
 *
 * The topic is compacted, so the last record of an id is all that counts. Loading: a piece is located on the loop (part_read), read in the pool, parsed on the
 * loop; then the partition is flushed, and then its transactions go on (txn_resume).
 */
#include "txn_int.h"
#include <inttypes.h>

#define VALUE_VERSION 1

/* ---- writing -------------------------------------------------------------------------------------------------------------- */

static void appended(struct append *a)
{
    struct txn *t = CONTAINER_OF(a, struct txn, append);
    txn_written(t, a->error == KAFKA_NONE                                                                       ? KAFKA_NONE
                   : a->error == KAFKA_KAFKA_STORAGE_ERROR || a->error == KAFKA_UNKNOWN_TOPIC_OR_PARTITION ? KAFKA_NOT_COORDINATOR
                                                                                                              : KAFKA_COORDINATOR_NOT_AVAILABLE);
}

static void value_write(const struct txn *t, struct buf *out)
{
    struct kafka_transaction_log_value v;
    kafka_transaction_log_value_init(&v);
    const struct txn_meta *m = &t->next;
    v.producer_id = m->producer_id;
    v.previous_producer_id = m->previous_id;
    v.producer_epoch = m->epoch;
    v.transaction_timeout_ms = m->timeout_ms;
    v.transaction_status = (int8_t)m->state;
    v.transaction_last_update_timestamp_ms = m->update_ms;
    v.transaction_start_timestamp_ms = m->start_ms;
    v.transaction_partitions_n = m->state == TXN_EMPTY ? -1 : (int32_t)t->next_parts.n;
    struct arena a;
    arena_init(&a, MEM_BROKER, 1024);
    v.transaction_partitions = arena_zalloc(&a, MAX(t->next_parts.n, 1) * sizeof *v.transaction_partitions);
    for (uint32_t i = 0; i < t->next_parts.n; i++) {
        const struct txn_topic *topic = &t->next_parts.topics[i];
        v.transaction_partitions[i] = (struct kafka_transaction_log_value_partitions_schema){
            .topic = slice_cstr(topic->name), .partition_ids = topic->parts, .partition_ids_n = (int32_t)topic->n};
    }
    struct kafka_writer w;
    kafka_writer_init(&w, out);
    kafka_write_int16(&w, VALUE_VERSION);
    kafka_transaction_log_value_write(&w, VALUE_VERSION, &v);
    kafka_writer_fini(&w);
    arena_fini(&a);
}

void txn_log_write(struct txn *t)
{
    struct buf key = {0}, value = {0};
    struct kafka_writer w;
    kafka_writer_init(&w, &key);
    kafka_write_int16(&w, 0);
    kafka_transaction_log_key_write(&w, 0, &(struct kafka_transaction_log_key){.transactional_id = t->id});
    kafka_writer_fini(&w);
    bool tombstone = t->next.state == TXN_DEAD;
    if (!tombstone)
        value_write(t, &value);
    struct kafka_batch head = kafka_batch_plain;
    int64_t now = txn_wall_ms();
    head.base_timestamp = now;
    struct kafka_batch_builder k;
    buf_clear(&t->bytes);
    kafka_batch_begin(&k, &t->bytes, &head);
    kafka_batch_add(&k, now, buf_slice(&key), tombstone ? (struct slice){0} : buf_slice(&value), NULL, 0);
    MUST(kafka_batch_end(&k, KAFKA_CODEC_NONE) == OK);
    buf_free(&key);
    buf_free(&value);
    t->append = (struct append){.bytes = t->bytes.p, .acks = -1, .coordinator = true, .done = appended};
    list_init(&t->append.link);
    MUST(kafka_batch_parse(buf_slice(&t->bytes), &t->append.batch) == KAFKA_NONE);
    part_append(t->part->bp->part, &t->append);
}

/* ---- loading -------------------------------------------------------------------------------------------------------------- */

struct txn_load {
    struct work work;
    struct txns_part *tp;
    struct part_read read;         /* the piece under way; its file is held */
    int64_t offset;                /* of the next piece */
    struct buf bytes, scratch;
    struct part_flush flush;
    enum err err;                  /* of the read in the pool */
};

static void load_next(struct txn_load *ld);

static void load_free(struct txn_load *ld)
{
    struct txns_part *tp = ld->tp;
    struct txns *all = tp->all;
    buf_free(&ld->bytes);
    buf_free(&ld->scratch);
    mem_free(ld);
    txns_part_unref(tp);
    all->loads--;
    if (all->stopping)
        shard_rested(all->s);
}

static bool partitions_fit(const struct kafka_transaction_log_value *v)
{
    uint64_t n = 0;
    for (int32_t i = 0; i < v->transaction_partitions_n; i++)
        n += (uint64_t)MAX(v->transaction_partitions[i].partition_ids_n, 0);
    return n <= TXN_PARTITIONS_MAX;
}

static bool value_apply(struct txn *t, const struct kafka_transaction_log_value *v)
{
    if (v->transaction_status < TXN_EMPTY || v->transaction_status > TXN_COMPLETE_ABORT || !partitions_fit(v))
        return false;
    t->now = (struct txn_meta){.producer_id = v->producer_id, .previous_id = v->previous_producer_id, .start_ms = v->transaction_start_timestamp_ms,
                               .update_ms = v->transaction_last_update_timestamp_ms, .timeout_ms = v->transaction_timeout_ms, .epoch = v->producer_epoch,
                               .last_epoch = TXN_EPOCH_NONE, .state = (enum txn_state)v->transaction_status};
    txn_parts_clear(&t->parts);
    for (int32_t i = 0; i < v->transaction_partitions_n; i++)
        for (int32_t j = 0; j < v->transaction_partitions[i].partition_ids_n; j++)
            txn_parts_add(&t->parts, v->transaction_partitions[i].topic, v->transaction_partitions[i].partition_ids[j]);
    return true;
}

bool txn_log_record(struct txns_part *tp, struct slice key, struct slice value)
{
    struct arena a;
    struct kafka_reader r;
    struct kafka_transaction_log_key k;
    struct kafka_transaction_log_value v;
    bool ok = false;
    arena_init(&a, MEM_BROKER, 4096);
    kafka_reader_init(&r, key);
    int16_t version = kafka_read_int16(&r);
    if (r.err != OK || version != 0 || kafka_transaction_log_key_read(&r, 0, &a, &k) != OK || k.transactional_id.n == 0)
        goto out;
    struct txn *t = table_get(&tp->all->by_id, k.transactional_id);
    if (!value.p) {
        if (t) {
            txn_forget(t);
            txn_release(t);
        }
        ok = true;
        goto out;
    }
    kafka_reader_init(&r, value);
    version = kafka_read_int16(&r);
    if (r.err != OK || version < 0 || version > VALUE_VERSION || kafka_transaction_log_value_read(&r, version, &a, &v) != OK)
        goto out;
    if (!t)
        t = txn_new(tp, k.transactional_id);
    ok = t && value_apply(t, &v);
out:
    arena_fini(&a);
    return ok;
}

static void load_batch(struct txn_load *ld, const struct kafka_batch *b)
{
    struct slice rest;
    struct kafka_record rec;
    bool sound = !(b->attributes & KAFKA_BATCH_CONTROL);
    buf_clear(&ld->scratch);
    if (sound && kafka_batch_records(b, KAFKA_INFLATE_BYTES_MAX, &ld->scratch, &rest) != OK)
        sound = false, rest.n = 0;
    for (int32_t i = 0; sound && i < b->count; i++)
        sound = kafka_record_next(&rest, &rec) == OK && txn_log_record(ld->tp, rec.key, rec.value);
    if (!sound && !(b->attributes & KAFKA_BATCH_CONTROL)) {
        counter_inc(&ld->tp->all->counters.records_skipped);
        log_error("broker", "a record of __transaction_state-%d at offset %" PRId64 " or behind it can't be read and is skipped: its transactional id may be as it was before it",
                  ld->tp->index, b->base_offset);
    }
}

/* The last record of an id has won; what it says begins. */
static void load_done(struct txn_load *ld, bool ok)
{
    struct txns_part *tp = ld->tp;
    if (tp->bp && !tp->all->stopping) {
        tp->state = ok ? TXNS_READY : TXNS_BROKEN;
        LIST_FOREACH (it, &tp->txns) {
            struct txn *t = CONTAINER_OF(it, struct txn, link);
            if (!ok)
                continue;
            if (txn_preparing(t))
                txn_parts_copy(&t->todo, &t->parts);
            txn_resume(t);
        }
    }
    load_free(ld);
}

static void load_flushed(struct part_flush *f, enum kafka_error e)
{
    struct txn_load *ld = CONTAINER_OF(f, struct txn_load, flush);
    if (e != KAFKA_NONE && ld->tp->bp)
        log_error("broker", "the transactions of __transaction_state-%d wait: what was read could not be made durable (%s); they are tried again when the broker starts",
                  ld->tp->index, kafka_error_name(e));
    load_done(ld, e == KAFKA_NONE);
}

static void load_read(struct work *w)
{
    struct txn_load *ld = CONTAINER_OF(w, struct txn_load, work);
    buf_clear(&ld->bytes);
    buf_reserve(&ld->bytes, ld->read.bytes);
    ld->err = file_read_at(segfile_fd(ld->read.file), ld->read.pos, ld->bytes.p, ld->read.bytes);
    ld->bytes.n = ld->read.bytes;
}

static void load_came(struct work *w)
{
    struct txn_load *ld = CONTAINER_OF(w, struct txn_load, work);
    segfile_unref(ld->read.file);
    if (!ld->tp->bp || ld->tp->all->stopping) {
        load_done(ld, false);
        return;
    }
    struct slice rest = buf_slice(&ld->bytes);
    struct kafka_batch b;
    int64_t before = ld->offset;
    while (ld->err == OK && rest.n && kafka_batch_parse(rest, &b) == KAFKA_NONE) {
        load_batch(ld, &b);
        ld->offset = kafka_batch_last_offset(&b) + 1;
        rest.p += b.bytes;
        rest.n -= b.bytes;
    }
    if (ld->offset <= before) {
        log_error("broker", "__transaction_state-%d can't be read at offset %" PRId64 "; its transactions get COORDINATOR_NOT_AVAILABLE until the broker starts again",
                  ld->tp->index, before);
        load_done(ld, false);
        return;
    }
    load_next(ld);
}

static void load_next(struct txn_load *ld)
{
    struct part *p = ld->tp->bp->part;
    struct arena a;
    arena_init(&a, MEM_BROKER, 256);
    ld->read = (struct part_read){.offset = ld->offset, .bytes_max = TXN_LOAD_BYTES, .until = PART_END, .one_at_least = true};
    part_read(p, &ld->read, &a);
    arena_fini(&a);
    if (ld->read.error != KAFKA_NONE) {
        log_error("broker", "__transaction_state-%d can't be read at offset %" PRId64 " (%s); its transactions get COORDINATOR_NOT_AVAILABLE until the broker starts again",
                  ld->tp->index, ld->offset, kafka_error_name(ld->read.error));
        load_done(ld, false);
    } else if (ld->read.bytes == 0) {
        segfile_unref(ld->read.file);
        ld->flush.done = load_flushed;
        list_init(&ld->flush.link);
        part_flush(p, &ld->flush);
    } else {
        ld->work = (struct work){.run = load_read, .done = load_came, .loop = ld->tp->all->s->loop};
        work_submit(ld->tp->all->s->loop, &ld->work);
    }
}

void txn_log_load(struct txns_part *tp)
{
    struct part_offsets o;
    struct txn_load *ld = mem_new(MEM_BROKER, sizeof *ld);
    ld->tp = tp;
    tp->refs++;
    tp->all->loads++;
    part_offsets(tp->bp->part, &o);
    ld->offset = o.log_start;
    load_next(ld);
}
