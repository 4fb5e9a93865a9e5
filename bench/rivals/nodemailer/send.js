// send.js PORT CONNECTIONS COUNT FILE: the mails of FILE, over and over, through nodemailer's pool. Prints mails/s.
"use strict";

const fs = require("node:fs");
const nodemailer = require("nodemailer");

const [port, connections, count, file] = process.argv.slice(2);
const mails = JSON.parse(fs.readFileSync(file, "utf8"));
const pool = nodemailer.createTransport({
  pool: true,
  host: "127.0.0.1",
  port: Number(port),
  secure: false,
  ignoreTLS: true,
  maxConnections: Number(connections),
  maxMessages: Infinity,
  disableFileAccess: true,
  disableUrlAccess: true,
});

let begun = 0;
let done = 0;
const started = process.hrtime.bigint();

// As the pool asks for: a message is given to it when it says that it has room for one.
function fill() {
  while (begun < Number(count) && pool.isIdle()) {
    pool.sendMail(mails[begun++ % mails.length], (error) => {
      if (error) throw error;
      if (++done === Number(count)) {
        console.log(done / (Number(process.hrtime.bigint() - started) / 1e9));
        pool.close();
      }
    });
  }
}

pool.on("idle", fill);
fill();
