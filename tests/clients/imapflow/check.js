// check.js: imapflow does what the products built on it do, and says in one line of JSON what it saw.
// sync_clients.py starts it with the connection's settings in CHECK and judges the answer.
'use strict';

const {ImapFlow} = require('imapflow');
const {createHash} = require('crypto');

const settings = JSON.parse(process.env.CHECK);

async function bodies(client) {
    const out = [];
    for await (const m of client.fetch('1:*', {uid: true, flags: true, envelope: true, bodyStructure: true, source: true,
        internalDate: true, size: true})) {
        out.push({uid: m.uid, flags: [...m.flags].sort(), subject: m.envelope.subject, size: m.size, emailId: m.emailId,
            type: m.bodyStructure.type, digest: createHash('sha256').update(m.source).digest('hex'),
            source: m.source.toString('latin1')});
    }
    return out;
}

async function work(client, said) {
    said.mailboxes = (await client.list()).map(m => [m.path, m.specialUse || '']);
    said.status = await client.status('INBOX', {messages: true, uidNext: true, unseen: true, highestModseq: true});
    await client.mailboxCreate('Made/Deep');
    await client.mailboxSubscribe('Made/Deep');
    const lock = await client.getMailboxLock('INBOX');
    try {
        said.exists = client.mailbox.exists;
        said.messages = await bodies(client);
        said.found = await client.search({subject: settings.name + ' 3'}, {uid: true});
        said.part = (await client.download('1', '1', {uid: true})).meta.contentType;
        said.flagged = await client.messageFlagsAdd({uid: '1:2'}, ['\\Flagged', '$Work']);
        said.copied = (await client.messageCopy('1:2', 'Made/Deep', {uid: true})).uidMap.size;
        said.moved = (await client.messageMove('3', 'Archive', {uid: true})).uidMap.size;
        said.deleted = await client.messageDelete('4', {uid: true});
        const got = new Promise(resolve => client.once('exists', resolve));
        said.appended = (await client.append('INBOX', settings.message, ['\\Seen'])).uid;
        said.told = (await got).count;
        said.changed = [];
        for await (const m of client.fetch('1:*', {flags: true}, {changedSince: BigInt(said.status.highestModseq)}))
            said.changed.push(m.uid);
    } finally {
        lock.release();
    }
    await client.mailboxRename('Made/Deep', 'Made/Deeper');
    said.deeper = (await client.status('Made/Deeper', {messages: true})).messages;
    await client.mailboxDelete('Made/Deeper');
}

async function main() {
    const said = {};
    const client = new ImapFlow({host: 'localhost', port: settings.port, secure: settings.secure, doSTARTTLS: settings.starttls,
        tls: {rejectUnauthorized: true, ca: settings.ca}, auth: {user: settings.name, pass: settings.password}, logger: false});
    await client.connect();
    said.secure = client.secureConnection;
    said.enabled = [...client.enabled].sort();
    await work(client, said);
    await client.logout();
    process.stdout.write(JSON.stringify(said, (k, v) => typeof v === 'bigint' ? Number(v) : v) + '\n');
}

main().catch(e => {
    process.stderr.write(e.stack + '\n' + (e.response ? JSON.stringify(e.response) : '') + '\n');
    process.exit(1);
});
